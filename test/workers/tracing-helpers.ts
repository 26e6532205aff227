import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import type { Logger } from 'pino';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { workerSettings } from '../../mesh/settings.ts';
import type { TracingSettings } from '../../mesh/trace-settings.ts';
import { startWorker, type Worker } from '../../workers/worker.ts';
import { silentLog } from './helpers.ts';

export const WIRETAP = fileURLToPath(new URL('../fixtures/servers/wiretap.mjs', import.meta.url));

export interface TracedWorker {
  worker: Worker;
  url: string;
  /** Executes a tool by REST; the answer's body. */
  execute(
    body: object,
    headers?: Record<string, string>,
  ): Promise<{ status: number; json: { content: { text: string }[] } & Record<string, unknown> }>;
  /** The message that the server got for a call of `tell` with this `_meta`. */
  tell(headers?: Record<string, string>): Promise<{ params: { _meta?: Record<string, unknown> } }>;
  /** Entries of the audit log so far. */
  audit(): Promise<Record<string, unknown>[]>;
  stop(): Promise<void>;
}

interface Options {
  tracing?: TracingSettings | undefined;
  service?: Partial<Service>;
  log?: Logger;
}

export function folderOf(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-tracing-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** Traces that begin here are all recorded, and sent at once. */
export function tracingTo(url: string, overrides: Partial<TracingSettings> = {}): TracingSettings {
  return { url, ratio: 1, followCaller: true, flushMs: 20, ...overrides };
}

/** A worker in this process whose server says what it was sent. */
export async function startTracedWorker(
  t: TestContext,
  { tracing, service: overrides = {}, log = silentLog }: Options = {},
): Promise<TracedWorker> {
  const path = join(folderOf(t), 'audit.jsonl');
  const service = {
    ...adHocService({ name: 'wiretap', command: process.execPath, args: [WIRETAP] }),
    ...overrides,
  };
  const settings = { ...workerSettings({}), drainIdleMs: 0, drainDeadlineMs: 5000 };
  const worker = await startWorker({
    service,
    settings: { ...settings, audit: { path, withArguments: false }, tracing },
    log,
    register: false,
  });
  let stopped: Promise<void> | undefined;
  const stop = () => {
    stopped ??= worker.stop();
    return stopped;
  };
  t.after(stop);
  const url = `http://127.0.0.1:${worker.port}`;
  const execute: TracedWorker['execute'] = async (body, headers = {}) => {
    const response = await fetch(`${url}/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', ...headers },
      body: JSON.stringify(body),
    });
    return { status: response.status, json: (await response.json()) as never };
  };
  return {
    worker,
    url,
    execute,
    stop,
    async tell(headers) {
      const { json } = await execute({ command: 'tell' }, headers);
      return JSON.parse(json.content[0]?.text ?? '');
    },
    async audit() {
      for (;;) {
        // The log is written behind the answer's back.
        const lines = readLines(path);
        if (lines.length > 0) return lines;
        await new Promise(resolve => setTimeout(resolve, 20));
      }
    },
  };
}

function readLines(path: string): Record<string, unknown>[] {
  try {
    return readFileSync(path, 'utf8')
      .split('\n')
      .filter(line => line !== '')
      .map(line => JSON.parse(line) as Record<string, unknown>);
  } catch {
    return [];
  }
}
