import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Entry, readRecord } from './request-record.ts';

/** Where a program of somebody else runs: it finds neither the user's files, nor a browser, nor a keychain. */
export interface Sandbox {
  folder: string;
  env: Record<string, string>;
  /** What it did on the network so far. */
  record(): Entry[];
  remove(): void;
}

export function createSandbox(): Sandbox {
  const folder = mkdtempSync(join(tmpdir(), 'third-party-home-'));
  const requests = join(folder, 'requests.jsonl');
  writeFileSync(requests, '');
  const env = {
    HOME: folder,
    // Browsers and keychain tools are looked for here.
    PATH: folder,
    MCP_INSPECTOR_SECRET_STORE: 'memory',
    REQUEST_RECORD: requests,
    NODE_OPTIONS: `--import=${new URL('./request-record.ts', import.meta.url)}`,
  };
  return {
    folder,
    env,
    record: () => readRecord(requests),
    remove: () => rmSync(folder, { recursive: true }),
  };
}

/** Protocol versions in the headers of the messages that went to an MCP endpoint, each once; '' for none. */
export function versionsOf(record: Entry[], url: string): string[] {
  const versions = record.flatMap(entry =>
    entry.kind === 'request' && entry.method === 'POST' && `${entry.origin}${entry.path}` === url
      ? [entry.headers['mcp-protocol-version'] ?? '']
      : [],
  );
  return [...new Set(versions)].sort();
}

/** Hosts outside of this machine that were contacted or looked up. */
export function foreignHosts(record: Entry[]): string[] {
  return record.flatMap(entry => {
    const host = entry.kind === 'request' ? new URL(entry.origin).hostname : entry.address;
    return ['127.0.0.1', '::1', '[::1]', 'localhost'].includes(host) ? [] : [host];
  });
}
