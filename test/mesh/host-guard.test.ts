import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { createHostGuard } from '../../mesh/host-guard.ts';

const strict = createHostGuard({ hosts: ['10.0.0.7', 'Worker.example'], origins: ['https://app.example'] });
const gateway = createHostGuard({ hosts: ['mesh.example'], origins: [], localNames: true });

describe('a request with a Host or Origin of somebody else’s is refused', () => {
  const cases: { guard?: typeof strict; host: string | undefined; origin?: string; pass: boolean }[] = [
    { host: 'localhost:1', pass: true },
    { host: '127.0.0.1', pass: true },
    { host: '[::1]:80', pass: true },
    { host: '10.0.0.7:11100', pass: true },
    { host: 'worker.EXAMPLE:1', pass: true },
    { host: 'evil.example', pass: false },
    { host: 'localhost.evil.example', pass: false },
    { host: '10.0.0.8', pass: false },
    { host: undefined, pass: false },
    { host: '', pass: false },
    { host: 'local host', pass: false },
    { host: 'localhost', origin: 'http://localhost:3000', pass: true },
    { host: 'localhost', origin: 'https://app.example', pass: true },
    { host: 'localhost', origin: 'https://app.example.evil.example', pass: false },
    { host: 'localhost', origin: 'null', pass: false },
    { host: 'localhost', origin: 'http://evil.example', pass: false },
    { guard: gateway, host: 'kong:10010', pass: true },
    { guard: gateway, host: '192.168.1.4:10010', pass: true },
    { guard: gateway, host: 'mesh.example', pass: true },
    { guard: gateway, host: 'evil.example', pass: false },
    { guard: gateway, host: 'kong', origin: 'http://evil.example', pass: false },
  ];
  for (const { guard = strict, host, origin, pass } of cases) {
    test(`${guard === strict ? 'worker' : 'gateway'}: Host ${host}, Origin ${origin}: ${pass ? 'served' : 'refused'}`, () => {
      assert.equal(guard(host, origin) === undefined, pass);
    });
  }
});
