import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { monitorEventLoopDelay } from 'node:perf_hooks';
import { setTimeout as pause } from 'node:timers/promises';
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads';
import { createDiscovery } from '../../kong-plugin/discovery.ts';
import { type Consul, createConsul, type Instance } from '../../mesh/consul.ts';

/**
 * How long a gateway takes to know what Consul answers, and how long its event loop stands still meanwhile, while a few
 * of 1,000 instances change each second: `node test/bench/discovery.ts`. Bars: 50 ms, 20 ms. A stand-in that only
 * answers runs in a thread of its own, so that its work is not counted.
 */

const INSTANCES = 1000;
const CHANGED_EACH_ROUND = 10;
const ROUNDS = 8;
const ROUND_MS = 1000;
const SHAPES = [1, 100];
/** Meta key of an instance that changed: when its answer was sent, epoch ms. */
const SENT_AT = 'sent_at';

if (isMainThread) {
  console.log(
    `Node ${process.version}; ${INSTANCES} instances, ${CHANGED_EACH_ROUND} change each second, ${ROUNDS} s`,
  );
  for (const services of SHAPES) await measure(services);
} else {
  serve(workerData.services);
}

async function measure(services: number): Promise<void> {
  const stub = new Worker(new URL(import.meta.url), { workerData: { services } });
  const { port, bytes } = await new Promise<{ port: number; bytes: number }>(resolve =>
    stub.once('message', resolve),
  );
  const consul = createConsul({ url: `http://127.0.0.1:${port}` });
  const waits: number[] = [];
  const discovery = createDiscovery({
    consul: timed(consul, waits),
    onInstances: () => {},
    onError: error => console.error(error.message),
  });
  await discovery.ready(30_000);
  const seen = discovery.list().reduce((sum, { instances }) => sum + instances.length, 0);
  if (seen !== INSTANCES) throw new Error(`${seen} of ${INSTANCES} instances are known`);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  stub.postMessage('go');
  await pause(ROUND_MS);
  waits.length = 0;
  delay.enable();
  const blocked = watchLoop();
  await pause(ROUNDS * ROUND_MS);
  const { late, computed } = blocked();
  delay.disable();
  console.log(
    `${services} services, ${Math.round(bytes / 1024)} KB an answer, ${waits.length} answers with changes\n` +
      `  answer sent → in the table, ms: ${quantiles(waits)}\n` +
      `  event loop blocked, ms: ${quantiles(late)} (monitorEventLoopDelay: longest ${(delay.max / 1e6).toFixed(1)})\n` +
      `  of that computing, ms: ${quantiles(computed)} (the rest is a busy machine)`,
  );
  discovery.close();
  consul.close();
  await stub.terminate();
}

/** The same Consul; notes for each answer with a change how old it is once discovery has taken it. */
function timed(consul: Consul, waits: number[]): Consul {
  const newest = new Map<string, number>();
  return {
    ...consul,
    watchInstances: (service, onChange, onError) =>
      consul.watchInstances(
        service,
        instances => {
          onChange(instances);
          const sentAt = Math.max(...instances.map(({ meta }) => Number(meta[SENT_AT] ?? 0)));
          if (sentAt > (newest.get(service) ?? 0))
            waits.push(performance.timeOrigin + performance.now() - sentAt);
          newest.set(service, sentAt);
        },
        onError,
      ),
  };
}

/** Asks each millisecond for its turn; tells how long the turns came late, and what the loop computed meanwhile, in ms. */
function watchLoop(): () => { late: number[]; computed: number[] } {
  const late: number[] = [];
  const computed: number[] = [];
  let last = performance.now();
  let cpu = process.threadCpuUsage();
  const timer = setInterval(() => {
    const now = performance.now();
    const { user, system } = process.threadCpuUsage(cpu);
    late.push(Math.max(0, now - last - 1));
    computed.push((user + system) / 1000);
    last = now;
    cpu = process.threadCpuUsage();
  }, 1);
  return () => {
    clearInterval(timer);
    return { late, computed };
  };
}

function quantiles(values: number[]): string {
  const sorted = values.toSorted((a, b) => a - b);
  const at = (share: number) => (sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(1);
  return `p50 ${at(0.5)}, p99 ${at(0.99)}, longest ${at(1)}`;
}

/** Blocking queries of a Consul with instances as workers register them. */
function serve(services: number): void {
  const size = INSTANCES / services;
  const names = Array.from({ length: services }, (_, i) => `mcp-server-${i}`);
  const entries = new Map(
    names.map(name => [name, Array.from({ length: size }, (_, i) => makeEntry(name, i))]),
  );
  const index = new Map(names.map(name => [name, 10]));
  const waiting = new Map<string, { response: ServerResponse; asked: number }>();
  const answer = (response: ServerResponse, name: string) => {
    response.writeHead(200, {
      'content-type': 'application/json',
      'x-consul-index': String(index.get(name) ?? 10),
    });
    response.end(JSON.stringify(body(name)));
  };
  const body = (name: string) => {
    if (name === 'services') return Object.fromEntries(names.map(service => [service, ['mcp']]));
    return entries.get(name) ?? [];
  };
  const server = createServer((request, response) => {
    const url = new URL(request.url ?? '/', 'http://stub');
    const name = url.pathname.split('/').at(-1) ?? '';
    const asked = Number(url.searchParams.get('index') ?? 0);
    if (asked < (index.get(name) ?? 10)) answer(response, name);
    else waiting.set(name, { response, asked });
  });
  const change = (round: number) => {
    for (let i = 0; i < CHANGED_EACH_ROUND; i += 1) {
      const name = names[(round * CHANGED_EACH_ROUND + i) % services] as string;
      const entry = entries.get(name)?.[(round * 7 + i) % size];
      const check = entry?.Checks[1];
      if (!entry || !check) continue;
      check.Status = check.Status === 'passing' ? 'critical' : 'passing';
      entry.Service.Meta[SENT_AT] = String(performance.timeOrigin + performance.now());
      index.set(name, (index.get(name) ?? 10) + 1);
    }
    for (const [name, { response, asked }] of waiting) {
      if ((index.get(name) ?? 10) <= asked) continue;
      waiting.delete(name);
      answer(response, name);
    }
  };
  parentPort?.once('message', () => {
    let round = 0;
    setInterval(() => change(round++), ROUND_MS);
  });
  server.listen(0, '127.0.0.1', () => {
    const bytes = JSON.stringify(body(names[0] as string)).length;
    parentPort?.postMessage({ port: (server.address() as AddressInfo).port, bytes });
  });
}

function makeEntry(service: string, number: number) {
  const id = `${service}-host-${number}-11100`;
  const check = (kind: string) => ({
    Node: `node-${number % 50}`,
    CheckID: `${id}:${kind}`,
    Name: kind === 'ttl' ? 'heartbeat of the worker' : 'health at the advertised address',
    Status: 'passing',
    Notes: '',
    Output:
      kind === 'ttl'
        ? 'server is ready'
        : 'HTTP GET http://10.0.0.1:11100/health: 200 OK Output: {"status":"ok"}',
    ServiceID: id,
    ServiceName: service,
    ServiceTags: ['mcp', 'language'],
    Type: kind,
    Definition: {},
    CreateIndex: 100 + number,
    ModifyIndex: 100 + number,
  });
  const meta: Instance['meta'] = {
    mcp_server: service.slice('mcp-'.length),
    instance: id,
    version: '1.2.3',
    era: 'legacy',
    protocol_version: '2025-11-25',
    tools_hash: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef',
    capabilities: 'python,typescript',
    strategy: 'ADAPTIVE',
    sharing: 'shared',
    failure_threshold: '5',
    recovery_timeout: '30',
    started_at: '2026-01-01T00:00:00.000Z',
  };
  return {
    Node: {
      ID: `00000000-0000-0000-0000-${String(number % 50).padStart(12, '0')}`,
      Node: `node-${number % 50}`,
      Address: `10.0.0.${number % 50}`,
      Datacenter: 'dc1',
      TaggedAddresses: { lan: `10.0.0.${number % 50}`, wan: `10.0.0.${number % 50}` },
      Meta: { 'consul-network-segment': '' },
      CreateIndex: 5,
      ModifyIndex: 6,
    },
    Service: {
      ID: id,
      Service: service,
      Tags: ['mcp', 'language'],
      Address: `10.0.0.${number % 50}`,
      TaggedAddresses: { lan_ipv4: { Address: `10.0.0.${number % 50}`, Port: 11100 } },
      Meta: meta,
      Port: 11_100 + number,
      Weights: { Passing: 100, Warning: 10 },
      EnableTagOverride: false,
      Proxy: { MeshGateway: {}, Expose: {} },
      Connect: {},
      CreateIndex: 100 + number,
      ModifyIndex: 100 + number,
    },
    Checks: [
      { ...check('serfHealth'), CheckID: 'serfHealth', ServiceID: '', Output: 'Agent alive and reachable' },
      check('ttl'),
      check('http'),
    ],
  };
}
