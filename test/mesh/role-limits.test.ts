import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import type { AccessPolicy } from '../../mesh/access-policy.ts';
import { matchesGlob, permissionsOf } from '../../mesh/grants.ts';
import { policyOf } from './roles.ts';

function limitsFor(policy: AccessPolicy, roles: string[], service = 'files') {
  return permissionsOf(policy, roles, service)?.limits;
}

/** Few letters, so that patterns and names meet. */
const name = fc.string({ unit: fc.constantFrom('a', 'b', '_'), minLength: 1, maxLength: 8 });
const glob = fc.string({ unit: fc.constantFrom('a', 'b', '_', '*'), minLength: 1, maxLength: 6 });

describe('limits', () => {
  const policy =
    policyOf(`slow: { allow: [{ service: files }], rate_limit: { requests: 60, window_s: 60 }, quota: { calls: 100, period: day }, in_flight: 2, tool_rates: [{ tool: "delete_*", calls: 1, window_s: 60 }] }
fast: { allow: [{ service: files }], rate_limit: { requests: 5, window_s: 1 }, quota: { calls: 200, period: month }, in_flight: 9, tool_rates: [{ tool: "*", calls: 100, window_s: 60 }] }
free: { allow: [{ service: files }] }
elsewhere: { allow: [{ service: github }] }
careful: { deny: [{ service: files, tools: [x] }] }
`);

  test("of one role are that role's", () => {
    assert.deepEqual(limitsFor(policy, ['slow']), {
      rate: { requests: 60, windowS: 60 },
      quota: { calls: 100, period: 'day' },
      inFlight: 2,
      toolRates: [{ pattern: 'delete_*', calls: 1, windowS: 60 }],
    });
  });

  test('of several roles are the most generous, each for itself', () => {
    assert.deepEqual(limitsFor(policy, ['slow', 'fast']), {
      rate: { requests: 5, windowS: 1 },
      quota: { calls: 100, period: 'day' },
      inFlight: 9,
      // Other tools are bounded by one of the roles only.
      toolRates: [{ pattern: 'delete_*', calls: 100, windowS: 60 }],
    });
  });

  test('are lifted by a role without them, if it lets the caller into this service', () => {
    assert.deepEqual(limitsFor(policy, ['slow', 'free']), {});
    const own = limitsFor(policy, ['slow']);
    assert.deepEqual(limitsFor(policy, ['slow', 'elsewhere']), own);
    assert.deepEqual(limitsFor(policy, ['slow', 'careful']), own);
  });

  test('of tools are, for every tool, what the kindest role gives', () => {
    const rates = fc.array(
      fc.record({ pattern: glob, calls: fc.integer({ min: 1, max: 9 }), windowS: fc.constant(1) }),
      { minLength: 1, maxLength: 3 },
    );
    const boundOf = (list: { pattern: string; calls: number }[], tool: string) =>
      Math.min(...list.filter(({ pattern }) => matchesGlob(pattern, tool)).map(({ calls }) => calls));
    fc.assert(
      fc.property(rates, rates, name, (a, b, tool) => {
        const role = {
          allow: [{ service: 'files' }],
          deny: [],
          mesh: [],
          rateLimit: undefined,
          quota: undefined,
          inFlight: undefined,
        };
        const roles = new Map([
          ['a', { ...role, toolRates: a }],
          ['b', { ...role, toolRates: b }],
        ]);
        const mixed: AccessPolicy = { ...policy, roles };
        const combined = boundOf(limitsFor(mixed, ['a', 'b'])?.toolRates ?? [], tool);
        // Two patterns may overlap where neither covers the other: then the combination is kinder, never stricter.
        assert.ok(combined >= Math.max(boundOf(a, tool), boundOf(b, tool)));
        assert.deepEqual(limitsFor(mixed, ['a'])?.toolRates, a);
      }),
      { numRuns: 300 },
    );
  });
});
