import { readFileSync } from 'node:fs';
import { editFile } from '../atomic-file.ts';
import type { ClientFormat } from '../clients/client-format.ts';
import { formatOf } from '../clients/formats.ts';
import { CommandError, EXIT } from '../command.ts';
import type { MigrateOptions } from '../migrate.ts';
import { answer, tell } from '../output.ts';
import { changesBetween } from './differences.ts';
import { hashOf, readJournal, type Switch, takeFromJournal } from './journal.ts';
import { documentOf, findEntry, switchedText } from './switched-text.ts';

type RollBackOptions = Pick<MigrateOptions, 'name' | 'entryOnly'> & { config: string };

interface Restored {
  service: string;
  file: string;
  entry: string;
  backup: string;
  /** What was brought back; `before`: it was so already. */
  how: 'whole' | 'entry' | 'before';
}

const SHOWN_MAX = 10;

/** `mesh migrate --rollback` */
export function rollBack(
  service: string,
  { json, ...options }: RollBackOptions & { json?: boolean },
): number {
  const restored = restore(service, options);
  const { file, entry, how } = restored;
  answer(json, restored, '');
  if (how === 'before') tell(`${file} was as before already`);
  else tell(`${file}: ${how === 'entry' ? `${entry} is` : 'all is'} as it was; restart the client`);
  return EXIT.ok;
}

/** Brings a client's file back as it was before its last switch to the service. @throws CommandError, Error */
export function restore(service: string, options: RollBackOptions): Restored {
  const { config, entryOnly = false } = options;
  const done = findSwitch(service, options);
  const former = readBackup(done);
  const now = readFileSync(config, 'utf8');
  const how = hashOf(now) === done.before ? 'before' : entryOnly ? 'entry' : 'whole';
  if (how === 'entry') editFile(config, text => withOldEntry(text, former, done, config), 'mesh migrate');
  if (how === 'whole') {
    if (hashOf(now) !== done.after) throw edited(now, former, done, config);
    editFile(config, text => unchanged(text, now, config) && former, 'mesh migrate');
  }
  takeFromJournal(config, done);
  return { service, file: config, entry: done.name, backup: done.backup, how };
}

/** The last switch of a service in a file. @throws Error when there is none */
export function findSwitch(
  service: string,
  { config, name }: Pick<RollBackOptions, 'config' | 'name'>,
): Switch {
  let switches: Switch[];
  try {
    switches = readJournal(config);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') throw cause;
    throw new Error(`${config}: is not there; --config names the client's configuration file`, { cause });
  }
  const found = switches.findLast(
    one => one.service === service && (name === undefined || one.name === name),
  );
  if (found) return found;
  const others = [...new Set(switches.map(one => one.service))];
  const there = others.length === 0 ? 'nothing in it was switched' : `switched are: ${others.join(', ')}`;
  throw new Error(`${config}: no switch of ${service} is known; ${there}`);
}

function readBackup({ backup, before }: Switch): string {
  let text: string;
  try {
    text = readFileSync(backup, 'utf8');
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    throw new Error(
      `${backup}: cannot be read (${code}); it is the file as it was, and without it there is no way back`,
      { cause },
    );
  }
  if (hashOf(text) === before) return text;
  throw new Error(`${backup} has been changed since the switch; bring the file back by hand`);
}

function withOldEntry(
  text: string,
  former: string,
  { client, name, within, entry }: Switch,
  config: string,
): string {
  const path = formatOf(client).pathOf({ name, within });
  const [now, before] = [findEntry(text, path), findEntry(former, path)];
  if (!before) throw new Error(`the backup has no entry "${name}"`);
  if (!now) throw new Error(`${config}: the entry "${name}" is gone; write it anew from the backup`);
  if (changesBetween(now.value, entry).length > 0)
    throw new Error(
      `${config}: the entry "${name}" itself has been changed since the switch; change it by hand`,
    );
  return text.slice(0, now.start) + former.slice(before.start, before.end) + text.slice(now.end);
}

function edited(now: string, former: string, done: Switch, config: string): CommandError {
  const what = changesSince(now, former, done);
  return new CommandError(`${config} has been changed since the switch: ${what}`, {
    facts: { code: 'changed_since', backup: done.backup },
    hints: [
      `--entry-only brings back the entry "${done.name}" alone and leaves the rest`,
      `${done.backup} is the whole file as it was`,
    ],
  });
}

/** Names and no values: there are secrets among them. */
function changesSince(now: string, former: string, { client, name, within, entry }: Switch): string {
  const format: ClientFormat = formatOf(client);
  const after = switchedText(former, format, { name, within }, entry);
  let value: unknown;
  try {
    value = documentOf(now);
  } catch (error) {
    return `it is broken (${(error as Error).message})`;
  }
  const paths = changesBetween(documentOf(after), value).map(({ path }) =>
    path.slice(1).replaceAll('/', '.'),
  );
  if (paths.length === 0) return 'its layout or its comments';
  const more = paths.length > SHOWN_MAX ? ` and ${paths.length - SHOWN_MAX} more` : '';
  return `${paths.slice(0, SHOWN_MAX).join(', ')}${more}`;
}

function unchanged(text: string, before: string, path: string): true {
  if (text === before) return true;
  throw new Error(`${path} has been changed in the meantime; run it again`);
}
