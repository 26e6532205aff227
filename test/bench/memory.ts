import { setTimeout as pause } from 'node:timers/promises';
import { runLoad, sendCalls } from './harness/load.ts';
import { isQuick, report, reportTable } from './harness/number.ts';
import { rssMb } from './harness/processes.ts';
import { RawConnection } from './harness/raw-http.ts';
import { startBareBridge, startHttpEcho } from './harness/references.ts';
import { initialize, openSession, type Target } from './harness/target.ts';
import { type BenchWorker, bundleWorker, startWorker } from './harness/worker.ts';

/**
 * Resident memory of the bridge's process: idle with everything loaded, after load, for each open session, and after
 * sessions that were opened and left. Beside it, bare servers in the same run. V8 keeps memory that it may need again,
 * so what stays after the first of something is measured with the second.
 */

const SESSIONS = 1000;
const ABANDONED = isQuick ? 2000 : 20_000;
/** A worker forgets an idle session after five minutes; then a sweep has to come. */
const EXPIRY_MS = isQuick ? 0 : 400_000;
const HEALTH_MS = 5000;
const BRIEF_CALLS = isQuick ? 2000 : 20_000;
const SETTLE_MS = isQuick ? 500 : 3000;
const OPENERS = 8;
const LOAD = { warmUpMs: 0, ms: isQuick ? 1000 : 6000 };
/** Of which each loads parts of a worker that others do not. */
const PATHS = [
  // First, because it waits until the server is up.
  ['POST', '/execute'],
  ['GET', '/health'],
  ['GET', '/metrics'],
  ['GET', '/openapi.json'],
  ['GET', '/tools'],
] as const;
const EXECUTE = JSON.stringify({ command: 'echo', params: { message: 'x' } });
const MODERN = {
  jsonrpc: '2.0',
  id: 1,
  method: 'tools/call',
  params: {
    name: 'echo',
    arguments: { message: 'x' },
    _meta: {
      'io.modelcontextprotocol/protocolVersion': '2026-07-28',
      'io.modelcontextprotocol/clientInfo': { name: 'bench', version: '0' },
      'io.modelcontextprotocol/clientCapabilities': {},
    },
  },
};

const bundle = await bundleWorker();
try {
  const rows: (string | number)[][] = [];
  for (const start of [
    () => startHttpEcho('node'),
    () => startHttpEcho('fastify'),
    () => startBareBridge('parse'),
  ]) {
    const target = await start();
    rows.push(await footprint(target));
    await target.stop();
  }
  const worker = await startWorker({ program: bundle.program });
  rows.push(await footprint(worker));
  const [, , idle = 0, afterLoad = 0] = rows.at(-1) as number[];
  reportTable({
    title: 'Resident memory of the bridge, MB',
    columns: ['', 'listening', 'idle, all loaded', 'after load'],
    rows,
  });
  report({ what: 'Worker, idle with everything loaded: RSS, MB', value: idle, bar: 95 });
  report({ what: 'Worker, after load (64 in flight, 100 B and 64 KB): RSS, MB', value: afterLoad, bar: 150 });
  await worker.stop();
  await sessions();
  await abandoned();
} finally {
  bundle.remove();
}

async function footprint(target: Target): Promise<(string | number)[]> {
  const pid = ownPid(target);
  await settle();
  const listening = rssMb(pid);
  if ('url' in target) await loadEverything(target as BenchWorker);
  else await runLoad(target, { callers: 1, bytes: 100 }, { warmUpMs: 0, ms: 50 });
  await settle();
  const idle = rssMb(pid);
  for (const bytes of [100, 64 * 1024]) await runLoad(target, { callers: 64, bytes }, LOAD);
  await settle();
  return [target.name, listening, idle, rssMb(pid)];
}

function ownPid(target: Target): number {
  const { worker, bridge } = target.pids();
  return worker ?? bridge ?? 0;
}

/** Each kind of request once, of both eras. */
async function loadEverything({ url }: BenchWorker): Promise<void> {
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  for (const [method, path] of PATHS) {
    const body = method === 'POST' ? { body: EXECUTE } : {};
    await read(await fetch(new URL(path, url), { method, headers, ...body }));
  }
  const modern = { 'mcp-protocol-version': '2026-07-28', 'mcp-method': 'tools/call', 'mcp-name': 'echo' };
  const body = JSON.stringify(MODERN);
  await read(await fetch(url, { method: 'POST', headers: { ...headers, ...modern }, body }));
  const connection = await RawConnection.open(url);
  await openSession(connection, url);
  connection.close();
}

async function read(response: Response): Promise<void> {
  const text = await response.text();
  if (!response.ok) throw new Error(`${response.url} answered ${response.status}: ${text}`);
}

/** The second thousand: what the first needed for itself is there. */
async function sessions(): Promise<void> {
  const worker = await startWorker({ program: bundle.program });
  await loadEverything(worker);
  const steps: number[] = [rssMb(worker.pid)];
  for (let thousand = 0; thousand < 3; thousand += 1) {
    await openMany(worker.url, SESSIONS, openSession);
    await settle();
    steps.push(rssMb(worker.pid));
  }
  await worker.stop();
  const [, first = 0, , last = 0] = steps;
  const kb = (Math.max(0, last - first) * 1024) / (2 * SESSIONS);
  reportTable({
    title: 'Sessions held open by one worker, RSS MB',
    columns: ['none', '1000', '2000', '3000', 'KB for one of the last 2000'],
    rows: [[...steps, kb]],
  });
  report({
    what: 'Worker, open session, mean of the second and third thousand: KB of RSS',
    value: kb,
    bar: 25,
  });
}

/** Meanwhile it is asked for its health, as Consul does; what is garbage by then goes when there are calls again. */
async function abandoned(): Promise<void> {
  const worker = await startWorker({ program: bundle.program });
  try {
    await loadEverything(worker);
    await openMany(worker.url, SESSIONS, initialize);
    await callBriefly(worker);
    const before = rssMb(worker.pid);
    await openMany(worker.url, ABANDONED, initialize);
    await settle();
    const opened = rssMb(worker.pid);
    for (let waited = 0; waited < EXPIRY_MS; waited += HEALTH_MS) {
      await pause(HEALTH_MS);
      await read(await fetch(new URL('/health', worker.url)));
    }
    await callBriefly(worker);
    const after = rssMb(worker.pid);
    reportTable({
      title: `${ABANDONED} sessions opened (initialize only) and left, RSS MB`,
      columns: ['before', 'all open', 'KB for each', `after ${EXPIRY_MS / 1000} s, and calls`],
      rows: [[before, opened, ((opened - before) * 1024) / ABANDONED, after]],
    });
    const what = `Worker, ${ABANDONED} sessions opened and left, after their expiry: MB of RSS more than before`;
    if (EXPIRY_MS > 0) report({ what, value: Math.max(0, after - before), bar: 10 });
  } finally {
    await worker.stop();
  }
}

async function callBriefly(target: Target): Promise<void> {
  await sendCalls(target, { callers: 8, bytes: 100 }, BRIEF_CALLS);
  await settle();
}

async function openMany(
  url: URL,
  count: number,
  open: (connection: RawConnection, url: URL) => Promise<unknown>,
): Promise<void> {
  let left = count;
  await Promise.all(
    Array.from({ length: OPENERS }, async () => {
      const connection = await RawConnection.open(url);
      for (; left > 0; ) {
        left -= 1;
        await open(connection, url);
      }
      connection.close();
    }),
  );
}

function settle(): Promise<void> {
  return pause(SETTLE_MS);
}
