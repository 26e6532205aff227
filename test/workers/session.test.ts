import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { test } from 'node:test';
import { createSessions } from '../../workers/session.ts';

const [oldKey, newKey] = [randomBytes(32), randomBytes(32)];
const sessions = (keys: Buffer[], service = 'a', owner = 'owner') =>
  createSessions({ keys, service, owner: () => owner });

test('any worker of the service reads a session that another one minted', () => {
  const token = sessions([oldKey], 'a', 'first').mint('2025-06-18');
  assert.equal(sessions([oldKey], 'a', 'second').read(token)?.protocolVersion, '2025-06-18');
  assert.match(token, /^first\.[\x21-\x7e]+$/);
});

test('no two sessions are the same', () => {
  const one = sessions([oldKey]);
  assert.notEqual(one.read(one.mint('2025-11-25'))?.id, one.read(one.mint('2025-11-25'))?.id);
});

test('a new key in front keeps the sessions of the old one; without the old one they end', () => {
  const token = sessions([oldKey]).mint('2025-11-25');
  assert.ok(sessions([newKey, oldKey]).read(token));
  assert.equal(sessions([newKey]).read(token), undefined);
});

test('what was not minted is unknown: another service, another owner, cut, changed, garbage', () => {
  const token = sessions([oldKey]).mint('2025-11-25');
  assert.equal(sessions([oldKey], 'b').read(token), undefined);
  const [owner, payload, mac] = token.split('.') as [string, string, string];
  const forged = Buffer.from('{"i":"x","v":"2025-11-25"}').toString('base64url');
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
  for (const text of hostile) assert.equal(sessions([oldKey]).read(text), undefined, text.slice(0, 80));
});
