import assert from 'node:assert/strict';
import { createHmac, randomBytes } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { META } from '../../mesh/eras.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { NO_CLIENT } from '../../workers/connection.ts';
import { createSessionTokens } from '../../workers/legacy/session-token.ts';
import {
  type Answer,
  INITIALIZE,
  readAnswer,
  ready,
  startTestWorker,
  type TestWorker,
  toolCall,
} from '../workers/helpers.ts';
import { HOSTILE, MODERN_META, modernHeaders } from '../workers/hostile/helpers.ts';
import { identityOf, makeKeys, policyOf, workerKeys } from './keys.ts';

/** What belongs to one caller, service and time is to everybody else as if it did not exist. */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));
const DAY_MS = 86_400_000;
const keys = makeKeys();
const policy = policyOf({ roles: { user: { allow: [{ service: '*' }] } } });

const as = (principal: string, service = 'shop', now = Date.now) =>
  identityOf(keys, { service, policy, roles: ['user'], principal, now });
const ALICE = () => as('key:alice');
const MALLORY = () => as('key:mallory');

describe('a session', () => {
  test('of another caller, of another service, expired or ended is as unknown as one that never was', async t => {
    const [shop, other] = [await start(t, 'shop'), await start(t, 'other')];
    const session = await open(shop, ALICE());
    const ofDaysAgo = (days: number) => {
      const tokens = createSessionTokens({
        keys: [deriveServiceKey(keys.root, 'shop')],
        service: 'shop',
        owner: () => session.split('.', 1)[0] ?? '',
        now: () => Date.now() - days * DAY_MS,
      });
      return tokens.mint({ ...NO_CLIENT, protocolVersion: '2025-11-25' }, 'key:alice').token;
    };
    const ended = await open(shop, ALICE());
    const end = await ask(shop, 'DELETE', { ...ALICE(), 'mcp-session-id': ended });
    assert.equal(end.status, 204);
    for (const method of ['POST', 'GET', 'DELETE']) {
      const unknown = await ask(shop, method, { ...ALICE(), 'mcp-session-id': 'no.such.session' });
      assert.equal(unknown.status, 404);
      for (const [desc, worker, headers] of [
        ['another caller', shop, { ...MALLORY(), 'mcp-session-id': session }],
        ['another service', other, { ...as('key:alice', 'other'), 'mcp-session-id': session }],
        ['expired', shop, { ...ALICE(), 'mcp-session-id': ofDaysAgo(8) }],
        ['ended', shop, { ...ALICE(), 'mcp-session-id': ended }],
        ['forged', shop, { ...ALICE(), 'mcp-session-id': forged(session) }],
      ] as const) {
        assert.deepEqual(await ask(worker, method, headers), unknown, `${method} ${desc}`);
      }
    }
    for (const token of [session, ofDaysAgo(6)]) {
      const { status } = await ask(shop, 'POST', { ...ALICE(), 'mcp-session-id': token });
      assert.equal(status, 200, 'it still is its owner’s');
    }
  });
});

describe('a parked state', () => {
  test('of another caller, of another service or request, used or expired is as unknown as one that never was', async t => {
    const [shop, other] = (await Promise.all(
      ['shop', 'other'].map(name => start(t, name, { isolation: 'session' }, HOSTILE)),
    )) as [TestWorker, TestWorker];
    const state = await park(shop, ALICE());
    const unknown = await retry(shop, ALICE(), 'no.state');
    assert.match(unknown.text, /-32602/);
    const cases = [
      ['another caller', shop, MALLORY(), state],
      ['another service', other, as('key:alice', 'other'), state],
      ['expired', shop, ALICE(), signed(state, -3600)],
      ['forged', shop, ALICE(), forged(state)],
    ] as const;
    for (const [desc, worker, identity, replayed] of cases) {
      assert.deepEqual(await retry(worker, identity, replayed), unknown, desc);
    }
    assert.match(
      (await retry(shop, ALICE(), state)).text,
      /"resultType":"complete"/,
      'it still is its owner’s',
    );
    assert.deepEqual(await retry(shop, ALICE(), state), unknown, 'used');
  });
});

describe('an identity', () => {
  test('for another service, expired, of another mesh, changed or unsigned opens no way in', async t => {
    const folder = mkdtempSync(join(tmpdir(), 'replay-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const lines = join(folder, 'lines');
    const worker = await start(t, 'shop', { env: { LINES: lines } });
    const good = ALICE()['x-mesh-identity'] ?? '';
    const [header = '', payload = '', signature = ''] = good.split('.');
    const claims = JSON.parse(Buffer.from(payload, 'base64url').toString());
    const richer = encode({ ...claims, sub: 'key:admin' });
    const bad: Record<string, string | undefined> = {
      none: undefined,
      empty: '',
      'for another service': as('key:alice', 'other')['x-mesh-identity'],
      expired: as('key:alice', 'shop', () => Date.now() - 61_000)['x-mesh-identity'],
      'of another mesh': identityOf(makeKeys(), { service: 'shop', policy, roles: ['user'] })[
        'x-mesh-identity'
      ],
      'with other claims': `${header}.${richer}.${signature}`,
      unsigned: `${encode({ alg: 'none' })}.${payload}.`,
      'signed by the public key': hmacSigned(payload),
      twice: `${good}, ${good}`,
    };
    assert.equal((await call(worker, '/tools', 'GET', ALICE())).status, 200);
    const before = readFileSync(lines, 'utf8');
    for (const [desc, token] of Object.entries(bad)) {
      const headers: Record<string, string> = token === undefined ? {} : { 'x-mesh-identity': token };
      for (const [path, method] of [
        ['/mcp', 'POST'],
        ['/mcp', 'GET'],
        ['/mcp', 'DELETE'],
        ['/execute', 'POST'],
        ['/tools', 'GET'],
        ['/tools', 'HEAD'],
        ['/tools/get_public', 'POST'],
      ] as const) {
        const answer = await call(worker, path, method, headers);
        assert.equal(answer.status, 401, `${desc}: ${method} ${path}`);
        assert.match(answer.headers.get('www-authenticate') ?? '', /^Mesh-Identity /);
      }
    }
    assert.equal(readFileSync(lines, 'utf8'), before, 'the server has heard nothing of it');
  });
});

async function start(
  t: TestContext,
  name: string,
  overrides: Partial<Service> = {},
  server = LENIENT,
): Promise<TestWorker> {
  const service = { ...adHocService({ name, command: process.execPath, args: [server] }), ...overrides };
  const worker = await startTestWorker(t, service, { ...workerKeys(keys, name), drainDeadlineMs: 100 });
  await ready(worker);
  return worker;
}

async function open(worker: TestWorker, identity: Record<string, string>): Promise<string> {
  const { headers } = await worker.post('/mcp', INITIALIZE, identity);
  return headers.get('mcp-session-id') ?? '';
}

/** Status and body of a request of a session; the call id differs each time. */
async function ask({ url }: TestWorker, method: string, headers: Record<string, string>) {
  const response = await fetch(`${url}/mcp`, {
    method,
    headers: {
      'content-type': 'application/json',
      accept: 'application/json, text/event-stream',
      ...headers,
    },
    ...(method === 'POST' ? { body: JSON.stringify(toolCall(1, 'get_public')) } : {}),
  });
  return seen(await readAnswer(response));
}

/** A call that its server wants to ask its client about. */
async function park(worker: TestWorker, identity: Record<string, string>): Promise<string> {
  const { json, text } = await asking(worker, identity, {});
  assert.equal(json.result?.resultType, 'input_required', text);
  return json.result.requestState;
}

async function retry(worker: TestWorker, identity: Record<string, string>, requestState: string) {
  const inputResponses = { q1: { action: 'accept', content: {} } };
  return seen(await asking(worker, identity, { requestState, inputResponses }));
}

function asking(worker: TestWorker, identity: Record<string, string>, more: object): Promise<Answer> {
  const _meta = { ...MODERN_META, [META.clientCapabilities]: { elicitation: {} } };
  const params = { name: 'ask', arguments: { question: 'which?' }, ...more, _meta };
  const body = { jsonrpc: '2.0', id: 1, method: 'tools/call', params };
  return worker.post('/mcp', body, { ...identity, ...modernHeaders('tools/call', 'ask') });
}

function seen({ status, text }: Answer) {
  return { status, text: text.replace(/"call_id":"[^"]*"/, '"call_id":""') };
}

async function call({ url }: TestWorker, path: string, method: string, headers: Record<string, string>) {
  const body = path === '/execute' ? '{"command":"get_public"}' : '{}';
  const response = await fetch(`${url}${path}`, {
    method,
    headers: { 'content-type': 'application/json', ...headers },
    ...(method === 'POST' ? { body } : {}),
  });
  await response.text();
  return response;
}

/** Alice's state as the worker itself would have signed it so many seconds from its time. */
function signed(state: string, seconds: number): string {
  const claims = JSON.parse(Buffer.from(state.split('.')[0] ?? '', 'base64url').toString());
  const body = encode({ ...claims, e: claims.e + seconds });
  const text = ['state', 'shop', 'key:alice', body].join('\0');
  const mac = createHmac('sha256', deriveServiceKey(keys.root, 'shop')).update(text).digest('base64url');
  return `${body}.${mac}`;
}

/** With another signature. */
function forged(token: string): string {
  const dot = token.lastIndexOf('.');
  return `${token.slice(0, dot + 1)}${token[dot + 1] === 'A' ? 'B' : 'A'}${token.slice(dot + 2)}`;
}

/** HS256 with the Ed25519 public key as the secret: what a verifier that trusts the header would take. */
function hmacSigned(payload: string): string {
  const signed = `${encode({ alg: 'HS256', typ: 'mesh-identity+jwt', kid: randomBytes(8).toString('hex') })}.${payload}`;
  const secret = Buffer.from(keys.identityPublic, 'base64url');
  return `${signed}.${createHmac('sha256', secret).update(signed).digest('base64url')}`;
}

function encode(value: object): string {
  return Buffer.from(JSON.stringify(value)).toString('base64url');
}
