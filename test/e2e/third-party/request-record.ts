import { subscribe } from 'node:diagnostics_channel';
import { appendFileSync, readFileSync } from 'node:fs';
import type { Socket } from 'node:net';

/**
 * What a client does on the network, written down by Node itself: its undici names every HTTP request, its net module
 * every connection attempt, before either has an outcome. So the client stays unchanged and talks to the gateway
 * itself. Loaded into a child process by `--import`, with the file to append to in REQUEST_RECORD.
 */

/** One line of the record. */
export type Entry =
  | { kind: 'request'; origin: string; method: string; path: string; headers: Record<string, string> }
  | { kind: 'connect' | 'lookup'; address: string };

/** The record of a process that ran with REQUEST_RECORD; empty when it did nothing on the network. */
export function readRecord(path: string): Entry[] {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1);
  return lines.map(line => JSON.parse(line) as Entry);
}

/** Hands over what this process does on the network from now on. */
export function recordRequests(onEntry: (entry: Entry) => void): void {
  subscribe('undici:request:create', message => {
    const { request } = message as { request: UndiciRequest };
    const { origin, method, path } = request;
    onEntry({ kind: 'request', origin: String(origin), method, path, headers: pairs(request.headers) });
  });
  subscribe('net.client.socket', message => {
    const { socket } = message as { socket: Socket };
    socket.on('lookup', (_error, _address, _family, host) => onEntry({ kind: 'lookup', address: host }));
    socket.on('connectionAttempt', address => onEntry({ kind: 'connect', address }));
  });
}

/** As undici publishes it: names and values in turn. */
interface UndiciRequest {
  origin: string | URL;
  method: string;
  path: string;
  headers: string[];
}

function pairs(flat: string[]): Record<string, string> {
  const entries = flat.flatMap((name, i) => (i % 2 === 0 ? [[name.toLowerCase(), flat[i + 1] ?? '']] : []));
  return Object.fromEntries(entries) as Record<string, string>;
}

const file = process.env.REQUEST_RECORD;
if (file !== undefined) recordRequests(entry => appendFileSync(file, `${JSON.stringify(entry)}\n`));
