import { createHash, generateKeyPairSync, randomBytes, randomUUID } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { exportJWK, generateKeyPair, SignJWT } from 'jose';
import { createKeyTable, type Principal } from '../../kong-plugin/api-keys.ts';
import { createAuthenticator, type RequestHeaders } from '../../kong-plugin/authenticate.ts';
import { createBalancer } from '../../kong-plugin/balancer/balancer.ts';
import { eligible } from '../../kong-plugin/candidates.ts';
import { challenge } from '../../kong-plugin/resource-metadata.ts';
import { parseRoute } from '../../kong-plugin/route.ts';
import type { AccessPolicy, Role } from '../../mesh/access-policy.ts';
import type { Instance } from '../../mesh/consul.ts';
import { toMeshError, toProblem } from '../../mesh/errors.ts';
import { permissionsOf } from '../../mesh/grants.ts';
import { createHostGuard } from '../../mesh/host-guard.ts';
import { createSigner } from '../../mesh/identity.ts';

/**
 * What authentication adds to a decision of the gateway: `node test/bench/authenticate.ts`. A "call" is the steps of
 * one: Host, path, caller, permissions, identity, choice of an instance. Bars: authenticated at most 1.3 times
 * anonymous; a bad key at most as dear as a good one.
 */

const CALLS = 20_000;
const ROUNDS = 15;
const KEYS = 10_000;
const AUDIENCE = 'https://mesh.example.com/api/v1/mcp';

const key = newKey();
const badKey = newKey();
const pair = await generateKeyPair('ES256');
const jwks = JSON.stringify({ keys: [{ ...(await exportJWK(pair.publicKey)), kid: 'k' }] });
const issuerServer = createServer((_, response) => response.end(jwks));
await new Promise<void>(resolve => void issuerServer.listen(0, '127.0.0.1', resolve));

const policy = makePolicy();
const { authenticate } = createAuthenticator({
  policy: () => policy,
  kongConsumers: false,
  log: message => console.error(message),
});
const instances = makeInstances();
const findKey = createKeyTable(policy.apiKeys);
const balancer = createBalancer();
const refuseHost = createHostGuard({ hosts: [], origins: [], localNames: true });
const sign = createSigner({ privateKey: generateKeyPairSync('ed25519').privateKey });
const base = { host: 'localhost:10010', 'content-type': 'application/json', accept: 'application/json' };
const good: RequestHeaders = { ...base, 'x-api-key': key };
const bad: RequestHeaders = { ...base, 'x-api-key': badKey };
const token: RequestHeaders = { ...base, authorization: `Bearer ${await makeToken('u1')}` };

const calls = {
  'anonymous call': () => call(base),
  'API key, call': () => call(good),
  'bad API key, call': () => call(bad),
  'cached token, call': () => call(token),
  anonymous: () => authenticate(base, 'bench'),
  'API key': () => authenticate(good, 'bench'),
  'bad API key': () => authenticate(bad, 'bench'),
  'cached token': () => authenticate(token, 'bench'),
  'look up good': async () => findKey(key),
  'look up bad': async () => findKey(badKey),
};

const best = await measure(calls);
console.log(`Node ${process.version}; ${KEYS} keys; microseconds, best of ${ROUNDS} rounds of ${CALLS}`);
for (const [name, us] of Object.entries(best)) console.log(`${name.padEnd(20)} ${us.toFixed(2)}`);
const ratio = (a: keyof typeof calls, b: keyof typeof calls) => ((best[a] ?? 0) / (best[b] ?? 1)).toFixed(2);
console.log(`API key / anonymous (call)      ${ratio('API key, call', 'anonymous call')}`);
console.log(`cached token / anonymous (call) ${ratio('cached token, call', 'anonymous call')}`);
console.log(`bad key / good key (look-up)     ${ratio('look up bad', 'look up good')}`);
console.log(`bad key / good key (exception)   ${ratio('bad API key', 'API key')}`);
console.log(`bad key / good key (call)        ${ratio('bad API key, call', 'API key, call')}`);

const fresh = await Promise.all(Array.from({ length: 2000 }, (_, i) => makeToken(`new-${i}`)));
const start = performance.now();
for (const text of fresh) await authenticate({ ...base, authorization: `Bearer ${text}` }, 'bench');
console.log(`new token (ES256)    ${(((performance.now() - start) * 1000) / fresh.length).toFixed(1)}`);
issuerServer.close().closeAllConnections();

async function call(headers: RequestHeaders): Promise<object> {
  const callId = randomUUID();
  if (refuseHost(base.host, undefined) !== undefined) throw new Error('the host is refused');
  const way = parseRoute('POST', '/api/v1/mcp/bench');
  let caller: Principal;
  try {
    caller = await authenticate(headers, 'bench');
  } catch (fault) {
    const error = toMeshError(fault);
    const value = challenge(error, 'bench', { policy, publicUrl: 'https://mesh.example.com' });
    return {
      status: error.status,
      headers: { value, callId },
      body: JSON.stringify(toProblem(error, callId)),
    };
  }
  const { principal, roles } = caller;
  const permissions = permissionsOf(policy, roles, 'bench');
  if (!permissions) throw new Error('the role lets nobody in');
  const identity = sign({
    sub: principal,
    roles,
    svc: 'bench',
    ...permissions,
    policy_version: policy.version,
  });
  const choice = { name: 'bench', strategy: 'ADAPTIVE', instances: eligible(instances) };
  const chosen = balancer.pick(choice, { key: principal, now: Date.now() }, 3);
  balancer.lease(callId, chosen[0]?.id ?? '', 'call', 90_000);
  balancer.release(callId);
  return { targets: chosen.map(({ address, port }) => [address, port]), way, headers: { identity, callId } };
}

/** The same wrapping for what is refused and what is not. */
async function settle(run: () => Promise<unknown>): Promise<void> {
  try {
    await run();
  } catch {}
}

/** Rounds of all kinds in turn, the best of each: a slow moment of the machine tells nothing of the code. */
async function measure(kinds: Record<string, () => Promise<unknown>>): Promise<Record<string, number>> {
  const times: Record<string, number> = {};
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const [name, run] of Object.entries(kinds)) {
      const began = performance.now();
      for (let i = 0; i < CALLS; i += 1) await settle(run);
      const us = ((performance.now() - began) * 1000) / CALLS;
      times[name] = Math.min(us, times[name] ?? us);
    }
  }
  return times;
}

function makePolicy(): AccessPolicy {
  const role: Role = {
    allow: [{ service: '*' }],
    deny: [],
    mesh: [],
    rateLimit: undefined,
    quota: undefined,
    inFlight: undefined,
    toolRates: [],
  };
  const texts = [key, ...Array.from({ length: KEYS - 1 }, newKey)];
  return {
    version: '0',
    anonymous: 'developer',
    allowedNetworks: [],
    apiKeys: texts.map((text, i) => ({
      id: `key-${i}`,
      hash: createHash('sha256').update(text).digest(),
      roles: ['developer'],
      expires: undefined,
    })),
    issuers: [
      {
        issuer: 'https://idp.example.com',
        jwksUri: `http://127.0.0.1:${(issuerServer.address() as AddressInfo).port}/`,
        audience: AUDIENCE,
        algorithms: ['ES256'],
        rolesClaim: 'roles',
      },
    ],
    roles: new Map([['developer', role]]),
  };
}

function makeInstances(): Instance[] {
  return Array.from({ length: 10 }, (_, i) => ({
    id: `mcp-bench-host-${i}`,
    service: 'mcp-bench',
    node: 'host',
    address: '10.0.0.1',
    port: 11_100 + i,
    tags: ['mcp'],
    meta: { mcp_server: 'bench' },
    weights: { passing: 100, warning: 10 },
    status: 'passing',
    reason: '',
  }));
}

function makeToken(sub: string): Promise<string> {
  return new SignJWT({ roles: ['developer'], scope: 'openid profile', name: 'A Name', sub })
    .setProtectedHeader({ alg: 'ES256', kid: 'k' })
    .setIssuer('https://idp.example.com')
    .setAudience(AUDIENCE)
    .setExpirationTime('1h')
    .sign(pair.privateKey);
}

function newKey(): string {
  return `mk_${randomBytes(32).toString('base64url')}`;
}
