import { type CommonOptions, type MeshCommand, UsageError } from './command.ts';

const ABOUT = `Makes, rotates and revokes keys. Gateways notice a change of the access policy within seconds.`;
const NOTE = 'Exit codes: 0 done, 1 refused, and the file is as it was, 2 wrong usage.';
const DEFAULT_KEEP = '24h';

/** Options of all subcommands; each has its own of them. */
export interface KeysOptions extends CommonOptions {
  registry?: string;
  file?: string;
  roles?: string;
  expires?: string;
}

export interface InitOptions extends KeysOptions {
  dir?: string;
}

export interface RotateOptions extends KeysOptions {
  keep: string;
}

/** `mesh keys …` */
export function keysCommand(command: MeshCommand): void {
  command.about(ABOUT);
  init(command.command('init'));
  create(command.command('create'));
  revoke(command.command('revoke'));
  rotate(command.command('rotate'));
}

function init(command: MeshCommand): void {
  command
    .summary("a new mesh's keys, for gateways and workers")
    .description('Prints the keys, or writes gateway.env and worker-<service>.env; never overwrites a file.')
    .option('--dir <folder>', 'where the files go')
    .registryOption()
    .note(`${NOTE} --json: {"files": {"<name>": "<text>"}}, or {"written": ["<path>"]}.`)
    .run(async (options: InitOptions) => (await import('./keys/mesh-keys-command.ts')).initKeys(options));
}

function create(command: MeshCommand): void {
  withPolicy(command)
    .summary('an API key for a caller')
    .description('Prints the key, once; the file keeps its hash.')
    .argument('<id>', 'name of the caller', readId)
    .option('--roles <a,b>', 'roles of the access policy, at least one')
    .option('--expires <date>', 'end of the access, such as 2027-01-01')
    .note(`${NOTE} --json: {"id", "key", "roles"}.`)
    .run(async (id: string, options: KeysOptions) =>
      (await import('./keys/api-keys.ts')).createKey(id, options),
    );
}

function revoke(command: MeshCommand): void {
  withPolicy(command)
    .summary("a caller's API keys end")
    .description(
      "A caller's API keys end, all of them: its next request is refused. A stream that it listens to already goes on until `mesh restart <service>`.",
    )
    .argument('<id>', 'name of the caller')
    .note(`${NOTE} --json: {"id", "revoked": true}.`)
    .run(async (id: string, options: KeysOptions) =>
      (await import('./keys/api-keys.ts')).revokeKeys(id, options),
    );
}

function rotate(command: MeshCommand): void {
  withPolicy(command)
    .summary('another API key for a caller; how to replace the keys of init')
    .description(
      'Gives a caller another key. With "identity" or "root": prints a new key of the mesh itself and the steps to replace the present one by; changes nothing.',
    )
    .argument('<id>', 'name of the caller, or identity, or root')
    .option(
      '--keep <time>',
      'how long the old key stays valid (s, m, h, d); 0 ends it, and those before it, at once',
      DEFAULT_KEEP,
    )
    .option('--expires <date>', 'another end of the access; "never" for none')
    .registryOption()
    .note(`${NOTE} --json: {"id", "key", "old_valid_until"}, or {"steps": "<text>"}.`)
    .run(async (id: string, options: RotateOptions) => {
      if (!isReserved(id)) return (await import('./keys/api-keys.ts')).rotateKey(id, options);
      return (await import('./keys/mesh-keys-command.ts')).rotateMeshKey(id, options);
    });
}

function withPolicy(command: MeshCommand): MeshCommand {
  return command.option(
    '--file <path>',
    'the access policy (default: $MESH_ACCESS_POLICY or config/access.yaml)',
  );
}

/** What `rotate` takes for something else than a caller's id. */
function isReserved(id: string): id is 'identity' | 'root' {
  return id === 'identity' || id === 'root';
}

function readId(id: string): string {
  if (isReserved(id)) throw new UsageError(`"${id}" means a key of the mesh itself; choose another id`);
  return id;
}
