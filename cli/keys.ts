import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { hashApiKey, parseAccessPolicy } from '../mesh/access-policy.ts';
import { expiresSchema, KEY_ID_PATTERN } from '../mesh/access-policy-schema.ts';
import { loadRegistry } from '../mesh/registry.ts';
import { gatewaySettings, registryEnvironment, startSettings } from '../mesh/settings.ts';
import { createSecretFiles, editFile } from './atomic-file.ts';
import { type Command, dispatch, EXIT, listCommands, parseOptions, UsageError } from './command.ts';
import { identityRotation, newMeshKeys, rootRotation } from './keys/mesh-keys.ts';
import { addKey, removeKey, renewKey, toSeconds } from './keys/policy-editor.ts';

const DEFAULT_POLICY = 'config/access.yaml';
const KEY_BYTES = 32;
const DEFAULT_KEEP = '24h';
const UNIT_MS = { s: 1000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const;
const KEEP_MAX_DAYS = 366;
/** What `rotate` takes for something else than a caller's id. */
const RESERVED_IDS = ['identity', 'root'];

const COMMANDS: Readonly<Record<string, Command>> = {
  init: { summary: "a new mesh's keys, for gateways and workers", run: init },
  create: { summary: 'an API key for a caller', run: create },
  revoke: { summary: "a caller's API keys end", run: revoke },
  rotate: { summary: 'another API key for a caller; how to replace the keys of init', run: rotate },
};

const HELP = `mesh keys – make, rotate and revoke keys

${listCommands(COMMANDS)}
Usage:
  mesh keys init [--dir <folder>] [--registry <file>]
      Prints the keys, or writes gateway.env and worker-<service>.env; never overwrites a file.
  mesh keys create <id> --roles <a,b> [--expires 2027-01-01] [--file <access policy>]
      Prints the key, once; the file keeps its hash.
  mesh keys revoke <id> [--file <access policy>]
  mesh keys rotate <id> [--keep ${DEFAULT_KEEP}] [--expires <date>|never] [--file <access policy>]
      The old key stays valid for that long (s, m, h, d); --keep 0 ends it, and those before it, at once.
  mesh keys rotate identity|root [--registry <file>]
      Prints a new key and the steps to replace the present one by; changes nothing.

The access policy is ${DEFAULT_POLICY} unless --file or MESH_ACCESS_POLICY says otherwise. Gateways notice a change within seconds.
`;

/** `mesh keys …` */
export function keysCommand(argv: string[]): Promise<number> {
  return dispatch(COMMANDS, argv, { program: 'mesh keys', help: HELP });
}

function init(argv: string[]): number {
  const { values } = parseOptions(argv, { dir: { type: 'string' }, registry: { type: 'string' } });
  if (values.help) return help();
  const files = newMeshKeys(serviceNames(values.registry));
  const { dir } = values;
  if (dir === undefined) {
    const sections = [...files].map(([name, text]) => `# ${name}\n${text}`);
    process.stdout.write(sections.join('\n'));
    tell('whoever reads these can be the gateway: keep them secret; --dir writes them to files instead');
    return EXIT.ok;
  }
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  createSecretFiles(new Map([...files].map(([name, text]) => [join(dir, name), text])));
  for (const name of files.keys()) process.stdout.write(`${join(dir, name)}\n`);
  tell('give each file to its own program only, and keep the folder out of version control');
  return EXIT.ok;
}

function create(argv: string[]): number {
  const options = {
    roles: { type: 'string' },
    expires: { type: 'string' },
    file: { type: 'string' },
  } as const;
  const { values, positionals } = parseOptions(argv, options, ['id']);
  if (values.help) return help();
  const [id = ''] = positionals;
  if (!KEY_ID_PATTERN.test(id)) {
    throw new UsageError(`"${id}" is no id: letters, digits, ".", "_", "@" and "-", 64 at most`);
  }
  if (RESERVED_IDS.includes(id))
    throw new UsageError(`"${id}" means a key of the mesh itself; choose another id`);
  const roles = (values.roles ?? '')
    .split(',')
    .map(role => role.trim())
    .filter(role => role !== '');
  if (roles.length === 0)
    throw new UsageError('--roles is missing; name at least one role of the access policy');
  const expires = values.expires === undefined ? undefined : futureDate(values.expires);
  const { key, hash } = newApiKey();
  change(values.file, (text, path) => addKey(text, path, { id, hash, roles: [...new Set(roles)], expires }));
  process.stdout.write(`${key}\n`);
  tell(
    `this is the key of ${id}, shown this once; it is sent as "Authorization: Bearer <key>" or "X-API-Key: <key>"`,
  );
  return EXIT.ok;
}

function revoke(argv: string[]): number {
  const { values, positionals } = parseOptions(argv, { file: { type: 'string' } }, ['id']);
  if (values.help) return help();
  const [id = ''] = positionals;
  change(values.file, (text, path) => removeKey(text, path, id));
  tell(`the keys of ${id} are gone from the access policy; calls that are under way end as they would`);
  return EXIT.ok;
}

function rotate(argv: string[]): number {
  const { values, positionals } = parseOptions(
    argv,
    {
      keep: { type: 'string' },
      expires: { type: 'string' },
      file: { type: 'string' },
      registry: { type: 'string' },
    },
    ['id'],
  );
  if (values.help) return help();
  const [id = ''] = positionals;
  if (RESERVED_IDS.includes(id)) {
    process.stdout.write(
      id === 'identity' ? identityRotation() : rootRotation(serviceNames(values.registry)),
    );
    return EXIT.ok;
  }
  const keepMs = duration(values.keep ?? DEFAULT_KEEP);
  const { expires: end } = values;
  const expires = end === undefined ? undefined : end === 'never' ? null : futureDate(end);
  const now = Date.now();
  const { key, hash } = newApiKey();
  change(values.file, (text, path) => renewKey(text, path, id, { hash, keepMs, expires, now }));
  process.stdout.write(`${key}\n`);
  const old = keepMs === 0 ? 'is not valid any more' : `stays valid until ${toSeconds(now + keepMs)} at most`;
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
  const path = file ?? gatewaySettings().policyPath ?? DEFAULT_POLICY;
  editFile(path, text => edit(text, path));
  const { warnings } = parseAccessPolicy(readFileSync(path, 'utf8'), { path });
  for (const warning of warnings) tell(warning);
}

function serviceNames(path = startSettings().registryPath): string[] {
  // Only names are asked for: no service has this one, so that no secret of any has to be set.
  const { services } = loadRegistry(path, { env: registryEnvironment(), only: '' });
  return services.map(service => service.name);
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

function help(): number {
  process.stdout.write(HELP);
  return EXIT.ok;
}

/** To stderr: stdout has what a script wants to read. */
function tell(text: string): void {
  process.stderr.write(`mesh: ${text}\n`);
}
