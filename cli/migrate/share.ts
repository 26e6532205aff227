import { existsSync, readFileSync } from 'node:fs';
import { createFile, editFile } from '../atomic-file.ts';

/** The share of new sessions that go to the mesh, beside the backup that has the old server's entry. */

const SUFFIX = '.percent';

/** From 0 to 100; undefined: nothing is said. @throws Error when the file says something else */
export function readShare(backup: string): number | undefined {
  const path = `${backup}${SUFFIX}`;
  if (!existsSync(path)) return undefined;
  const text = readFileSync(path, 'utf8').trim();
  const percent = Number(text);
  if (text !== '' && percent >= 0 && percent <= 100) return percent;
  throw new Error(`${path}: "${text.slice(0, 20)}" is no share from 0 to 100`);
}

/** @throws Error as `editFile` */
export function writeShare(backup: string, percent: number): void {
  const path = `${backup}${SUFFIX}`;
  const text = `${percent}\n`;
  if (existsSync(path)) editFile(path, () => text, 'mesh migrate');
  else createFile(path, text, 0o644);
}
