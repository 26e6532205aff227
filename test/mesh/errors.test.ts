import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { test } from 'node:test';
import {
  ERROR_CODES,
  errorHeaders,
  MeshError,
  toMeshError,
  toProblem,
  toRpcError,
} from '../../mesh/errors.ts';

test('the README names every code with its status, and no other', () => {
  const readme = readFileSync(new URL('../../README.md', import.meta.url), 'utf8');
  const rows = [...readme.matchAll(/^\| `([a-z_]+)` \| (\d{3}) \|/gm)].map(
    ([, code, status]) => `${code} ${status}`,
  );
  assert.deepEqual(rows.sort(), ERROR_CODES.map(code => `${code} ${new MeshError(code).status}`).sort());
});

test('an error tells the same in both forms: code, call, delivery, and when to try again', () => {
  const error = new MeshError('queue_full', {
    detail: 'all 4 places are taken',
    delivered: 'no',
    retryAfterMs: 1200,
  });
  const same = { code: 'queue_full', delivered: 'no', call_id: 'c1', retry_after_ms: 1200 };
  assert.partialDeepStrictEqual(toProblem(error, 'c1'), {
    ...same,
    status: 503,
    detail: 'all 4 places are taken',
  });
  const rpc = toRpcError(error, 'c1');
  assert.partialDeepStrictEqual(rpc.data, same);
  assert.deepEqual([rpc.code, rpc.message], [-32603, 'Queue is full: all 4 places are taken']);
  assert.deepEqual(errorHeaders(error), { 'retry-after': '2' });
});

test('an unknown fault tells a caller nothing of itself', () => {
  const fault = new TypeError("Cannot read properties of undefined (reading 'secret')");
  const error = toMeshError(fault);
  assert.equal(error.cause, fault);
  assert.doesNotMatch(JSON.stringify([toProblem(error), toRpcError(error)]), /secret|TypeError/);
});

test('own JSON-RPC codes keep out of what the specification reserves for itself', () => {
  for (const code of ERROR_CODES) {
    const { code: rpc } = toRpcError(new MeshError(code));
    assert.ok(rpc === -32001 || (rpc >= -32700 && rpc <= -32600), `${code}: ${rpc}`);
  }
});
