import { readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { resolve } from 'node:path';
import { parseEnv } from 'node:util';

const MAX_BYTES = 1_048_576;

/**
 * Variables of a file that a client's configuration names (`envFile`).
 * @throws Error that names the file and the reason
 */
export function readEnvFile(path: string): Map<string, string> {
  const fail = (why: string): never => {
    throw new Error(`${path} cannot be read (${why})`);
  };
  try {
    const { size } = statSync(path);
    // A client's file comes from anywhere: what it names may be a pipe or a device.
    if (!statSync(path).isFile()) return fail('not a file');
    if (size > MAX_BYTES) return fail('more than 1 MiB');
    const parsed = parseEnv(readFileSync(path, 'utf8'));
    return new Map(Object.entries(parsed).map(([name, value]) => [name, value ?? '']));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === undefined) throw cause;
    return fail(code);
  }
}

/** Where an `envFile` is, as far as that can be known here. */
export function envFilePath(text: string, base: string | undefined): string | undefined {
  const path = text
    .replace(/^\$\{userHome\}/, homedir())
    .replace(/^\$\{workspaceFolder\}/, all => base ?? all);
  if (path.includes('${') || (base === undefined && !path.startsWith('/'))) return undefined;
  return resolve(base ?? '/', path);
}

/**
 * Lines of a file of variables, as `node --env-file` and systemd read them.
 * @throws Error naming the variable when there is no way to write its value
 */
export function formatEnvFile(values: ReadonlyMap<string, string>): string {
  return [...values].map(([name, value]) => `${name}=${quote(name, value)}\n`).join('');
}

function quote(name: string, value: string): string {
  if (/^[\w@%+=:,./-]*$/.test(value)) return value;
  const found = ["'", '"', '`'].find(sign => {
    const line = `X=${sign}${value}${sign}\n`;
    return !value.includes(sign) && parseEnv(line).X === value;
  });
  if (found !== undefined) return `${found}${value}${found}`;
  throw new Error(
    `${name}: its value has every kind of quote, and no file of variables can hold it: set it by hand`,
  );
}
