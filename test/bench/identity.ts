import { randomBytes } from 'node:crypto';
import {
  createSigner,
  createVerifier,
  type Identity,
  parsePrivateKey,
  parsePublicKey,
  publicKeyOf,
} from '../../mesh/identity.ts';
import { createNonce, findProofFault, makeProof } from '../../mesh/instance-proof.ts';
import { deriveServiceKey } from '../../mesh/keys.ts';

/** Time of the identity token and of the proof, and what their caches keep: `node --expose-gc test/bench/identity.ts`. */

const RUNS = 5000;
const PAIRS = 100_000;
const LIFE_MS = 60_000;
const clock = { ms: Date.now() };
const now = () => clock.ms;
const privateKey = parsePrivateKey(randomBytes(32).toString('base64url'));
const publicKeys = [parsePublicKey(publicKeyOf(privateKey))];
const claims: Omit<Identity, 'iat' | 'exp'> = {
  sub: 'jwt:https://idp.example.com/realms/main#5b0d6a52-7a3f-4b39-9d4f-2d3b9a6f3f10',
  roles: ['developer', 'on-call'],
  svc: 'github',
  grants: { allow: [{ tools: ['get_*', 'list_*', 'search_*'] }], deny: [{ tools: ['delete_*'] }] },
  limits: { rate: { requests: 600, windowS: 60 }, inFlight: 20, quota: { calls: 10_000, period: 'day' } },
  policy_version: 'a1b2c3d4e5f6',
};
const rootKeys = [randomBytes(32), randomBytes(32)];
const keys = rootKeys.map(key => deriveServiceKey(key, 'github'));
const place = { service: 'github', id: 'mcp-github-host-11100', address: '10.0.0.5', port: 11_100 };

const sign = createSigner({ privateKey, now });
const verify = createVerifier({ publicKeys, service: 'github', now });
const subjects = Array.from({ length: RUNS }, (_, i) => ({ ...claims, sub: `${claims.sub}${i}` }));
const tokens = subjects.map(subject => createSigner({ privateKey, now })(subject));
// As Node makes a header: a new string for each request.
const copies = tokens.map(() => Buffer.from(tokens[0] ?? '').toString('latin1'));

console.log(
  `Node ${process.version}; a token has ${tokens[0]?.length} characters; microseconds, mean of ${RUNS}`,
);
measure('sign', i => sign(subjects[i] ?? claims));
measure('sign, known', () => sign(claims));
measure('sign, known, equal grants in another object', () =>
  sign({ ...claims, grants: { ...claims.grants } }),
);
measure('verify', i => verify(tokens[i]));
measure('verify, known', i => verify(copies[i]));
measure('refuse a wrong signature', i => refuse(`${tokens[i]?.slice(0, -4)}AAAA`));
measure('refuse a foreign key', i => refuse(`x${tokens[i]}`));
const nonce = createNonce();
const proof = makeProof(keys, nonce, place);
measure('proof, made with two keys', () => makeProof(keys, nonce, place));
measure('proof, checked', () => findProofFault(proof, keys, nonce, place));
measure('service keys derived from two root keys', () =>
  rootKeys.map(key => deriveServiceKey(key, 'github')),
);

console.log(`\n${PAIRS} principal × service pairs, three rounds; MB of heap beyond the start`);
const start = heapMb();
const manySigner = createSigner({ privateKey, now });
for (let round = 1; round <= 3; round += 1) {
  for (let i = 0; i < PAIRS; i += 1) manySigner({ ...claims, sub: `${claims.sub}${i}` });
  console.log(`signer, round ${round}: ${(heapMb() - start).toFixed(1)}`);
  clock.ms += LIFE_MS;
}
const before = heapMb();
const manyVerifier = createVerifier({ publicKeys, service: 'github', now });
for (let round = 1; round <= 3; round += 1) {
  for (let i = 0; i < PAIRS / 5; i += 1) {
    const token = manySigner({ ...claims, sub: `${claims.sub}${i}` });
    manyVerifier(Buffer.from(token).toString('latin1'));
  }
  console.log(`verifier, round ${round} (${PAIRS / 5} tokens): ${(heapMb() - before).toFixed(1)}`);
  clock.ms += LIFE_MS;
}
// Both still in use: the figures above are not of collected caches.
manyVerifier(manySigner(claims));

function measure(name: string, run: (i: number) => unknown): void {
  const begin = performance.now();
  for (let i = 0; i < RUNS; i += 1) run(i);
  console.log(`${name.padEnd(45)} ${(((performance.now() - begin) * 1000) / RUNS).toFixed(2)}`);
}

function refuse(token: string): void {
  try {
    verify(token);
  } catch {
    return;
  }
  throw new Error('a bad token was taken');
}

function heapMb(): number {
  globalThis.gc?.();
  return process.memoryUsage().heapUsed / 1e6;
}
