import { randomBytes } from 'node:crypto';
import {
  closeSync,
  fchmodSync,
  fsyncSync,
  linkSync,
  openSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';

/** Files that hold the old text or the new one, never half of it, whatever happens in between. */

/**
 * Replaces the text of a file. The lock file (`<file>.lock`, as git has it) is also what the new text is written to,
 * so that of two edits at once one is refused and none is lost. A symbolic link stays one; so does the file's mode.
 * `command` is what the one that is refused takes the other for.
 * @throws Error naming the file; whatever `edit` throws, and the file is as it was
 */
export function editFile(path: string, edit: (text: string) => string, command = 'mesh keys'): void {
  const target = real(path);
  const lock = `${target}.lock`;
  const descriptor = openLock(lock, command);
  try {
    const before = readFileSync(target, 'utf8');
    const text = edit(before);
    fchmodSync(descriptor, statSync(target).mode & 0o7777);
    writeFileSync(descriptor, text);
    fsyncSync(descriptor);
    // Programs that know nothing of the lock rewrite their own files.
    if (readFileSync(target, 'utf8') !== before)
      throw new Error(`${path} has been changed in the meantime; run it again`);
    renameSync(lock, target);
  } catch (error) {
    rmSync(lock, { force: true });
    throw error;
  } finally {
    closeSync(descriptor);
  }
}

/**
 * Makes files that only their owner can read: all of them, or none.
 * @throws Error when one is there already: keys are never overwritten
 */
export function createSecretFiles(files: ReadonlyMap<string, string>): void {
  const made: string[] = [];
  try {
    for (const [path, text] of files) {
      createFile(path, text, 0o600);
      made.push(path);
    }
  } catch (error) {
    for (const path of made) rmSync(path, { force: true });
    throw error;
  }
}

/** Makes a file, whole or not at all. @throws Error when there is one already */
export function createFile(path: string, text: string, mode = 0o666): void {
  const draft = `${path}.${randomBytes(6).toString('hex')}.tmp`;
  const descriptor = openSync(draft, 'wx', mode);
  try {
    writeFileSync(descriptor, text);
    fsyncSync(descriptor);
    // Unlike a rename, a link never takes the place of a file that is there.
    linkSync(draft, path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
    throw new Error(`${path} is there already and is not overwritten; take another folder or name`, {
      cause,
    });
  } finally {
    closeSync(descriptor);
    rmSync(draft, { force: true });
  }
}

function openLock(lock: string, command: string): number {
  try {
    return openSync(lock, 'wx');
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'EEXIST') throw cause;
    const cure = 'wait for it; if none runs, one was killed: remove the file';
    throw new Error(`${lock} is there: another \`${command}\` is changing the file; ${cure}`, { cause });
  }
}

function real(path: string): string {
  try {
    return realpathSync(path);
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(`${path}: cannot be read (${code}); --file names the access policy`, { cause });
  }
}
