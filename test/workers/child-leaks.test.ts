import assert from 'node:assert/strict';
import { readdirSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { MeshError } from '../../mesh/errors.ts';
import { childrenOf, eventually, type Started, startServer, unrulyService } from './child-helpers.ts';

const SERVERS = 20;
const KILLS = 3;
const CALLS = 15;
const OWN_TAG = new RegExp(`MCP_MESH_CHILD=\\d+-${process.pid}-`);
const MB = 1024 * 1024;

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

test(`${SERVERS * KILLS} kills in the middle of ${SERVERS * CALLS} calls leave nothing behind`, async t => {
  // A first, smaller round loads what is loaded lazily: what stays after it is no leak.
  await storm(t, 4);
  await eventually(() => left().length === 0, left);
  collectGarbage();
  const before = { descriptors: descriptors(), heap: process.memoryUsage().heapUsed };

  const outcomes = await storm(t, SERVERS);
  t.diagnostic(JSON.stringify(outcomes));
  const sum = Object.values(outcomes).reduce((total, count) => total + count, 0);
  assert.equal(sum, SERVERS * CALLS);
  assert.ok((outcomes.ok ?? 0) > 0 && (outcomes.child_crashed ?? 0) > 0, JSON.stringify(outcomes));

  await eventually(() => left().length === 0, left);
  await eventually(() => descriptors() <= before.descriptors, descriptors);
  collectGarbage();
  const grown = process.memoryUsage().heapUsed - before.heap;
  assert.ok(grown < 4 * MB, `the heap grew by ${(grown / MB).toFixed(1)} MB`);
});

/** Calls and kills on so many servers at once; resolves with the outcomes when all are stopped. */
async function storm(t: TestContext, count: number): Promise<Record<string, number>> {
  const service = { ...unrulyService(), timeout_ms: 600 };
  const hang = { quietMs: 200, answerMs: 200 };
  const servers = Array.from({ length: count }, () => startServer(t, service, hang));
  const outcomes: Record<string, number> = {};
  await Promise.all(
    servers.map(async started => {
      await Promise.all([callAll(started, outcomes), killAll(started)]);
      await started.server.stop();
    }),
  );
  return outcomes;
}

async function callAll({ server, call }: Started, outcomes: Record<string, number>): Promise<void> {
  const tools = ['echo', 'slow', 'escape', 'silent', 'helper'];
  for (let turn = 0; turn < CALLS; turn += 1) {
    // What waits for a server that is being started again is another's business.
    while (server.state !== 'ready') await delay(10);
    const tool = tools[turn % tools.length] ?? 'echo';
    const outcome = await call(tool, { text: 'x', ms: 20 }, 300).then(
      () => 'ok',
      (error: unknown) => (error instanceof MeshError ? error.code : String(error)),
    );
    outcomes[outcome] = (outcomes[outcome] ?? 0) + 1;
    await delay(Math.random() * 100);
  }
}

async function killAll({ server }: Started): Promise<void> {
  const signals = ['SIGKILL', 'SIGSTOP', 'SIGTERM'] as const;
  for (let round = 0; round < KILLS; round += 1) {
    // During its start, too: the wait is for a process and not for its handshake.
    while (server.state === 'down' || server.pid === undefined) await delay(5);
    await delay(Math.random() * 400);
    const { pid } = server;
    const signal = signals[Math.floor(Math.random() * signals.length)] ?? 'SIGKILL';
    try {
      if (pid !== undefined) process.kill(pid, signal);
    } catch {
      // It had just ended.
    }
    if (signal !== 'SIGSTOP') continue;
    // Half of the stopped ones go on; the others have to be found out.
    if (Math.random() < 0.5) await delay(50).then(() => goOn(pid));
  }
}

function goOn(pid = 0): void {
  try {
    if (pid > 0) process.kill(pid, 'SIGCONT');
  } catch {
    // It was ended meanwhile.
  }
}

/** Processes and temp folders of children of this process, zombies included. */
function left(): string[] {
  const mine = readdirSync('/proc').filter(name => /^\d+$/.test(name) && name !== String(process.pid));
  const tagged = mine.filter(pid => {
    try {
      return readFileSync(`/proc/${pid}/environ`, 'latin1').match(OWN_TAG) !== null;
    } catch {
      return false;
    }
  });
  const folders = readdirSync(tmpdir()).filter(name => name.includes(`-${process.pid}-`));
  return [...tagged, ...childrenOf(process.pid).map(pid => `child ${pid}`), ...folders];
}

function descriptors(): number {
  return readdirSync('/proc/self/fd').length;
}
