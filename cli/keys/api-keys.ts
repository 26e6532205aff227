import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { hashApiKey, parseAccessPolicy } from '../../mesh/access-policy.ts';
import { expiresSchema, KEY_ID_PATTERN } from '../../mesh/access-policy-schema.ts';
import { startSettings } from '../../mesh/settings.ts';
import { editFile } from '../atomic-file.ts';
import { EXIT, UsageError } from '../command.ts';
import type { KeysOptions, RotateOptions } from '../keys.ts';
import { answer, tell } from '../output.ts';
import { addKey, removeKey, renewKey, toSeconds } from './policy-editor.ts';

const KEY_BYTES = 32;
const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const KEEP_MAX_DAYS = 366;

/** `mesh keys create <id>` */
export function createKey(id: string, { roles: text = '', expires: end, file, json }: KeysOptions): number {
  if (!KEY_ID_PATTERN.test(id)) {
    throw new UsageError(`"${id}" is no id: letters, digits, ".", "_", "@" and "-", 64 at most`);
  }
  const names = text
    .split(',')
    .map(role => role.trim())
    .filter(role => role !== '');
  if (names.length === 0)
    throw new UsageError('--roles is missing; name at least one role of the access policy');
  const expires = end === undefined ? undefined : futureDate(end);
  const { key, hash } = newApiKey();
  const roles = [...new Set(names)];
  change(file, (policy, path) => addKey(policy, path, { id, hash, roles, expires }));
  answer(json, { id, key, roles, expires }, `${key}\n`);
  tell(
    `this is the key of ${id}, shown this once; it is sent as "Authorization: Bearer <key>" or "X-API-Key: <key>"`,
  );
  return EXIT.ok;
}

/** `mesh keys revoke <id>` */
export function revokeKeys(id: string, { file, json }: KeysOptions): number {
  change(file, (policy, path) => removeKey(policy, path, id));
  answer(json, { id, revoked: true }, '');
  tell(`the keys of ${id} are gone from the access policy; calls that are under way end as they would`);
  return EXIT.ok;
}

/** `mesh keys rotate <id>` */
export function rotateKey(id: string, { keep, expires: end, file, json }: RotateOptions): number {
  const keepMs = duration(keep);
  const expires = end === undefined ? undefined : end === 'never' ? null : futureDate(end);
  const now = Date.now();
  const { key, hash } = newApiKey();
  change(file, (policy, path) => renewKey(policy, path, id, { hash, keepMs, expires, now }));
  const until = keepMs === 0 ? null : toSeconds(now + keepMs);
  answer(json, { id, key, old_valid_until: until }, `${key}\n`);
  const old = until === null ? 'is not valid any more' : `stays valid until ${until} at most`;
  tell(`this is the new key of ${id}, shown this once; the old one ${old}`);
  return EXIT.ok;
}

/** The key is random through and through, so that its plain SHA-256 cannot be guessed back. */
function newApiKey(): { key: string; hash: string } {
  const key = `mk_${randomBytes(KEY_BYTES).toString('base64url')}`;
  return { key, hash: `sha256:${hashApiKey(key).toString('hex')}` };
}

/** Changes the access policy and says what else is odd in it. */
function change(file: string | undefined, edit: (text: string, path: string) => string): void {
  const path = file ?? startSettings().policyPath;
  editFile(path, text => edit(text, path));
  const { warnings } = parseAccessPolicy(readFileSync(path, 'utf8'), { path });
  for (const warning of warnings) tell(warning);
}

function futureDate(text: string): string {
  const { error } = expiresSchema.safeParse(text);
  if (error) throw new UsageError(`--expires: "${text}" ${error.issues[0]?.message}`);
  if (Date.parse(text) <= Date.now()) throw new UsageError(`--expires: ${text} is past`);
  return text;
}

function duration(text: string): number {
  if (text === '0') return 0;
  const [, count, unit] = /^(\d{1,9})([smhd])$/.exec(text) ?? [];
  if (count === undefined)
    throw new UsageError(`--keep: "${text}" is no time such as 24h (s, m, h, d) and not 0`);
  const ms = Number(count) * UNIT_MS[unit as keyof typeof UNIT_MS];
  if (ms > KEEP_MAX_DAYS * UNIT_MS.d) throw new UsageError(`--keep: ${text} is more than a year`);
  return ms;
}
