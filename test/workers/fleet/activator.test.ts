import assert from 'node:assert/strict';
import { request } from 'node:http';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { createNonce, findProofFault } from '../../../mesh/instance-proof.ts';
import { deriveServiceKey } from '../../../mesh/keys.ts';
import { INITIALIZE, toolCall } from '../helpers.ts';
import { makeKeys, startTestGateway, workerKeys } from './gateway.ts';
import { scripted, startTestFleet, type TestFleet, until } from './helpers.ts';

const SERVICE = 'lazy';
const FROM_ZERO = { instances: { min: 0, max: 2, target_in_flight: 4 } };

interface Entry {
  id: string;
  url: string;
  address: string;
  port: number;
}

/** The activator as gateways find it. */
async function activatorOf({ consulUrl }: TestFleet): Promise<Entry> {
  return until('an activator', async () => {
    const response = await fetch(`${consulUrl}/v1/health/service/mcp-${SERVICE}?passing`);
    const entries = (await response.json()) as {
      Service: { ID: string; Address: string; Port: number; Meta: Record<string, string> };
    }[];
    const found = entries.find(({ Service }) => Service.Meta.role === 'activator');
    if (!found) return undefined;
    const { ID: id, Address: address, Port: port } = found.Service;
    return { id, address, port, url: `http://${address}:${port}` };
  });
}

function execute(url: string, command: string, params: object = {}): Promise<Response> {
  return fetch(`${url}/execute`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ command, params }),
  });
}

async function textOf(response: Response): Promise<unknown> {
  const body = (await response.json()) as { content?: { text: string }[] };
  return body.content?.[0]?.text ?? body;
}

function startLazy(t: TestContext, options: Parameters<typeof startTestFleet>[2] = {}, fields: object = {}) {
  return startTestFleet(t, [scripted(SERVICE, { ...FROM_ZERO, ...fields })], {
    ...options,
    times: { idleMs: 60_000, ...options.times },
  });
}

test('through the gateway: the first calls start an instance, and it goes when nobody calls', async t => {
  const keys = makeKeys();
  const mesh = await startLazy(t, { worker: name => workerKeys(keys, name), times: { idleMs: 1500 } });
  const url = `${await startTestGateway(mesh, keys)}/api/v1/mcp/${SERVICE}`;
  const { id } = await activatorOf(mesh);
  // What Consul says reaches a gateway a moment later.
  const seesActivator = async () => {
    const { details = [] } = (await (await fetch(`${url}/status`)).json()) as {
      details?: { id: string; state: string }[];
    };
    return details.length === 1 && details[0]?.id === id && details[0].state === 'passing';
  };
  for (const round of [1, 2]) {
    await until('a gateway that sees the activator, and nothing else', seesActivator);
    assert.deepEqual(mesh.rows(), [], `round ${round}`);
    const answers = await Promise.all(
      Array.from({ length: 5 }, (_, i) => execute(url, 'echo', { text: `${round}-${i}` }).then(textOf)),
    );
    assert.deepEqual(
      answers,
      Array.from({ length: 5 }, (_, i) => `${round}-${i}`),
    );
    await mesh.passing(SERVICE, 1);
    await mesh.passing(SERVICE, 0, 'activator');
    await until('rest', () => mesh.rows().length === 0);
    await mesh.passing(SERVICE, 1, 'activator');
  }
});

test('a stream passes through the activator as it comes; whoever goes takes the other with it', async t => {
  const mesh = await startLazy(t);
  const { url } = await activatorOf(mesh);
  const headers = { 'content-type': 'application/json', accept: 'application/json, text/event-stream' };
  const post = (body: object, more: Record<string, string> = {}) =>
    fetch(`${url}/mcp`, { method: 'POST', headers: { ...headers, ...more }, body: JSON.stringify(body) });
  const started = await post(INITIALIZE, { 'x-request-id': 'the-first-call' });
  assert.equal(started.status, 200);
  assert.equal(started.headers.get('x-request-id'), 'the-first-call');
  await started.text();
  const session = { 'mcp-session-id': started.headers.get('mcp-session-id') ?? '' };

  const call = toolCall(7, 'progress', { steps: 3, ms: 150 }, { progressToken: 'p' });
  const response = await post(call, session);
  assert.match(response.headers.get('content-type') ?? '', /event-stream/);
  let text = '';
  const arrivals: number[] = [];
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString();
    arrivals.push(text.match(/notifications\/progress/g)?.length ?? 0);
  }
  assert.match(text, /"id":7/);
  assert.ok(arrivals.includes(1), `the first progress came before the others: ${arrivals}`);

  await until('a ready instance', () => mesh.rows()[0]?.state === 'ready');
  const gone = new AbortController();
  const silent = fetch(`${url}/execute`, {
    method: 'POST',
    headers,
    body: JSON.stringify({ command: 'silent', params: {} }),
    signal: gone.signal,
  }).catch(() => undefined);
  await until('the call at the worker', () => mesh.rows()[0]?.in_flight === 1);
  gone.abort();
  await silent;
  await until('its end there', () => mesh.rows()[0]?.in_flight === 0);
});

test('a large body that comes slowly is passed on whole', async t => {
  const mesh = await startLazy(t);
  const { port, address } = await activatorOf(mesh);
  const text = 'x'.repeat(2_000_000);
  const body = JSON.stringify({ command: 'echo', params: { text } });
  const answer = await new Promise<string>((resolve, reject) => {
    const call = request(
      {
        host: address,
        port,
        path: '/execute',
        method: 'POST',
        headers: { 'content-type': 'application/json' },
      },
      async response => {
        const chunks: Buffer[] = [];
        for await (const chunk of response) chunks.push(chunk as Buffer);
        resolve(Buffer.concat(chunks).toString());
      },
    );
    call.on('error', reject);
    // Without a length: chunked.
    call.write(body.slice(0, 1000));
    setTimeout(() => call.end(body.slice(1000)), 300);
  });
  assert.equal((JSON.parse(answer) as { content: { text: string }[] }).content[0]?.text.length, text.length);
});

test('who is not let in by a worker is not let in here, and starts nothing', async t => {
  const keys = makeKeys();
  const mesh = await startLazy(t, { worker: name => workerKeys(keys, name) });
  const { url } = await activatorOf(mesh);
  const refused = await execute(url, 'echo');
  assert.equal(refused.status, 401);
  assert.match(refused.headers.get('www-authenticate') ?? '', /^Mesh-Identity/);
  const forged = await fetch(`${url}/mcp`, {
    method: 'POST',
    headers: { 'x-mesh-identity': 'a.b.c' },
    body: '{}',
  });
  assert.deepEqual(
    [forged.status, ((await forged.json()) as { error: { data: { code: string } } }).error.data.code],
    [401, 'unauthenticated'],
  );
  const rebound = await new Promise(resolve => {
    request(`${url}/execute`, { method: 'POST', headers: { host: 'evil.example' } }, response => {
      response.resume();
      resolve(response.statusCode);
    }).end('{}');
  });
  assert.equal(rebound, 403);
  assert.deepEqual(mesh.rows(), []);
});

test('it proves that it belongs to the mesh', async t => {
  const keys = makeKeys();
  const mesh = await startLazy(t, { worker: name => workerKeys(keys, name) });
  const { url, ...place } = await activatorOf(mesh);
  const nonce = createNonce();
  const proof: unknown = await (await fetch(`${url}/proof?nonce=${nonce}`)).json();
  const own = deriveServiceKey(keys.root, SERVICE);
  assert.equal(findProofFault(proof, [own], nonce, { ...place, service: SERVICE }), undefined);
  const other = deriveServiceKey(keys.root, 'other');
  assert.match(findProofFault(proof, [other], nonce, { ...place, service: SERVICE }) ?? '', /wrong key/);
});

test('a server that does not come up: the call is answered in time, as not delivered, with Retry-After', async t => {
  const mesh = await startLazy(t, { times: { holdMs: 800 } }, { env: { MODE: 'mute' } });
  const { url } = await activatorOf(mesh);
  const response = await execute(url, 'echo');
  const { code, delivered, retry_after_ms } = (await response.json()) as Record<string, unknown>;
  assert.deepEqual(
    [response.status, code, delivered, retry_after_ms],
    [503, 'child_unavailable', 'no', 5000],
  );
  assert.equal(response.headers.get('retry-after'), '5');
  assert.equal(mesh.rows().length, 1, 'it goes on to start');
});

test('no more calls are held than there is room for, and those whose caller left are forgotten', async t => {
  const mesh = await startLazy(t, { times: { holdMs: 20_000 } }, { env: { MODE: 'mute' } });
  const { url } = await activatorOf(mesh);
  const held = () => mesh.fleet.status().services[0]?.activator?.held;
  const leaving = new AbortController();
  const calls = Array.from({ length: 256 }, () =>
    fetch(`${url}/execute`, { method: 'POST', body: '{}', signal: leaving.signal }).catch(() => undefined),
  );
  await until('256 held calls', () => held() === 256);
  const response = await execute(url, 'echo');
  assert.equal(response.status, 503);
  assert.match(await response.text(), /256 calls wait for it already/);
  const tooLarge = await new Promise(resolve => {
    const call = request(
      `${url}/execute`,
      { method: 'POST', headers: { 'content-length': 9_000_000 } },
      answer => {
        resolve(answer.statusCode);
        call.destroy();
      },
    );
    call.on('error', () => {});
    call.write('{');
  });
  assert.equal(tooLarge, 413);
  leaving.abort();
  await Promise.all(calls);
  await until('no held call', () => held() === 0);
});

test('a reload from min: 0 to 1 ends the activator, and back brings it', async t => {
  const mesh = await startLazy(t, { times: { idleMs: 500 } });
  await activatorOf(mesh);
  mesh.write([scripted(SERVICE, { instances: 1 })]);
  await mesh.ready(SERVICE, 1);
  await mesh.passing(SERVICE, 1);
  await mesh.passing(SERVICE, 0, 'activator');
  await pause(100);
  assert.equal(mesh.fleet.status().services[0]?.activator, null);
  mesh.write([scripted(SERVICE, FROM_ZERO)]);
  await until('rest', () => mesh.rows().length === 0);
  const { url } = await activatorOf(mesh);
  assert.equal(await textOf(await execute(url, 'echo', { text: 'again' })), 'again');
});
