import { createHash } from 'node:crypto';
import { existsSync, readFileSync, realpathSync, rmSync } from 'node:fs';
import { z } from 'zod';
import type { JsonObject } from '../../mesh/jsonrpc.ts';
import { createFile, editFile } from '../atomic-file.ts';
import { CLIENT_IDS, type ClientId } from '../clients/client-format.ts';

/** What `--switch` did to a client's file, so that it can be undone: a file beside it, for its owner only. */
export interface Switch {
  service: string;
  client: ClientId;
  /** The entry's name, and the keys that lead to the object of servers that it is in. */
  name: string;
  within: string[];
  /** Path of the file as it was. */
  backup: string;
  /** When, ISO 8601. */
  at: string;
  /** SHA-256 of the whole file before and after. */
  before: string;
  after: string;
  /** The entry of the mesh. */
  entry: JsonObject;
}

const SUFFIX = '.mesh-journal.json';
const OWNER_ONLY = 0o600;

const journalSchema = z.object({
  version: z.literal(1),
  switches: z.array(
    z.object({
      service: z.string(),
      client: z.enum(CLIENT_IDS),
      name: z.string(),
      within: z.array(z.string()),
      backup: z.string(),
      at: z.string(),
      before: z.string(),
      after: z.string(),
      entry: z.record(z.string(), z.unknown()),
    }),
  ),
});

/** The switches of a client's file, in their order. @throws Error when the journal cannot be read */
export function readJournal(path: string): Switch[] {
  const journal = journalOf(path);
  return existsSync(journal) ? parse(readFileSync(journal, 'utf8'), journal) : [];
}

/** @throws Error as `editFile` */
export function addToJournal(path: string, done: Switch): void {
  const journal = journalOf(path);
  if (!existsSync(journal)) createFile(journal, print([]), OWNER_ONLY);
  editFile(journal, text => print([...parse(text, journal), done]), 'mesh migrate');
}

/** Forgets a switch; the last one takes the journal along. @throws Error as `editFile` */
export function takeFromJournal(path: string, { backup }: Switch): void {
  const journal = journalOf(path);
  editFile(journal, text => print(parse(text, journal).filter(one => one.backup !== backup)), 'mesh migrate');
  if (readJournal(path).length === 0) rmSync(journal);
}

export function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}

/** Beside the file itself, where the path is a link. */
function journalOf(path: string): string {
  return `${realpathSync(path)}${SUFFIX}`;
}

function parse(text: string, journal: string): Switch[] {
  try {
    return journalSchema.parse(JSON.parse(text)).switches;
  } catch (cause) {
    throw new Error(
      `${journal}: is no journal of \`mesh migrate\`; bring the file back from its backup by hand`,
      {
        cause,
      },
    );
  }
}

function print(switches: readonly Switch[]): string {
  return `${JSON.stringify({ version: 1, switches }, null, 2)}\n`;
}
