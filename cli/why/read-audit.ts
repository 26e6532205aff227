import { createReadStream, readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { isObject } from '../../mesh/jsonrpc.ts';

/**
 * The entries of an audit log under a call's id, of the older files beside it, too; `%p` in the path stands for any
 * process id. Files are read line by line: one may have a hundred megabytes.
 * @throws Error when there is no such file, or it cannot be read
 */
export async function readAudit(path: string, callId: string): Promise<Record<string, unknown>[]> {
  const files = filesOf(path);
  if (files.length === 0) throw new Error('there is no such file');
  const found: Record<string, unknown>[] = [];
  for (const file of files) {
    const lines = createInterface({ input: createReadStream(file), crlfDelay: Number.POSITIVE_INFINITY });
    for await (const line of lines) {
      const entry = line.includes(callId) ? parse(line) : undefined;
      if (entry?.call_id === callId) found.push(entry);
    }
  }
  return found;
}

function filesOf(path: string): string[] {
  const folder = dirname(path);
  const parts = basename(path).split('%p').map(RegExp.escape);
  const pattern = new RegExp(`^${parts.join('\\d+')}(\\.\\d+)?$`);
  return readdirSync(folder)
    .filter(name => pattern.test(name))
    .map(name => join(folder, name));
}

/** undefined for a line that a crash tore. */
function parse(line: string): Record<string, unknown> | undefined {
  try {
    const value: unknown = JSON.parse(line);
    return isObject(value) ? value : undefined;
  } catch {
    return undefined;
  }
}
