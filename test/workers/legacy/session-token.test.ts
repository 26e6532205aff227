import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createSessionTokens } from '../../../workers/legacy/session-token.ts';

const [oldKey, newKey] = [randomBytes(32), randomBytes(32)];
const sessions = (keys: Buffer[], service = 'a', owner = 'owner', now?: () => number) =>
  createSessionTokens({ keys, service, owner: () => owner, ...(now ? { now } : {}) });
const client = {
  protocolVersion: '2025-06-18',
  capabilities: {
    elicitation: {},
    sampling: { tools: {} },
    roots: { listChanged: true },
    experimental: { huge: 'x'.repeat(9000) },
  },
  clientInfo: { name: 'test', version: '1', icons: ['x'.repeat(9000)] },
};
const mint = (from: ReturnType<typeof sessions>, principal = 'alice') => from.mint(client, principal).token;

test('any worker of the service reads what another one minted: version, capabilities, client', () => {
  const token = mint(sessions([oldKey], 'a', 'first'));
  const claims = sessions([oldKey], 'a', 'second').read(token, 'alice');
  assert.equal(claims?.protocolVersion, '2025-06-18');
  assert.deepEqual(claims?.capabilities, {
    elicitation: {},
    sampling: { tools: {} },
    roots: { listChanged: true },
  });
  assert.deepEqual(claims?.clientInfo, { name: 'test', version: '1' });
  assert.match(token, /^first\.[\x21-\x7e]+$/);
  assert.ok(token.length < 400, `${token.length} characters`);
});

test('no two sessions are the same', () => {
  const one = sessions([oldKey]);
  assert.notEqual(one.read(mint(one), 'alice')?.id, one.read(mint(one), 'alice')?.id);
});

test('a new key in front keeps the sessions of the old one; without the old one they end', () => {
  const token = mint(sessions([oldKey]));
  assert.ok(sessions([newKey, oldKey]).read(token, 'alice'));
  assert.equal(sessions([newKey]).read(token, 'alice'), undefined);
});

test('what was not minted for this caller is unknown: another principal, service, owner, time, or text', () => {
  const token = mint(sessions([oldKey]));
  assert.equal(sessions([oldKey]).read(token, 'mallory'), undefined);
  assert.equal(sessions([oldKey], 'b').read(token, 'alice'), undefined);
  const inTwoWeeks = () => Date.now() + 14 * 24 * 3_600_000;
  assert.equal(sessions([oldKey], 'a', 'owner', inTwoWeeks).read(token, 'alice'), undefined);
  const [owner, payload, mac] = token.split('.') as [string, string, string];
  const forged = Buffer.from('{"i":"x","v":"2025-11-25","t":9999999999}').toString('base64url');
  const hostile = [
    `other.${payload}.${mac}`,
    `${owner}.${forged}.${mac}`,
    `${owner}.${payload}.${mac.slice(0, -2)}`,
    `${owner}.${payload}.`,
    `${payload}.${mac}`,
    '',
    '.',
    '..',
    'x'.repeat(100_000),
  ];
  for (const text of hostile)
    assert.equal(sessions([oldKey]).read(text, 'alice'), undefined, text.slice(0, 80));
});
