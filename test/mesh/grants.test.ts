import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { MeshError } from '../../mesh/errors.ts';
import { type Grants, type Kind, mayMesh, mayUse, permissionsOf } from '../../mesh/grants.ts';
import { policyOf } from './roles.ts';

const KINDS: Kind[] = ['tools', 'prompts', 'resources'];
const RUNS = { numRuns: 300 };

/** Few letters, so that patterns and names meet. */
const name = fc.string({ unit: fc.constantFrom('a', 'b', '_'), minLength: 1, maxLength: 8 });
const glob = fc.string({ unit: fc.constantFrom('a', 'b', '_', '*'), minLength: 1, maxLength: 6 });
const globs = fc.array(glob, { minLength: 1, maxLength: 3 });
const rule = fc.record({ tools: globs, prompts: globs, resources: globs }, { requiredKeys: [] });
const rules = fc.array(rule, { maxLength: 4 });
const grantsOf = fc.record({ allow: rules, deny: rules });
const kind = fc.constantFrom(...KINDS);

describe('what grants allow', () => {
  test('deny wins', () => {
    fc.assert(
      fc.property(grantsOf, kind, name, ({ allow, deny }, what, text) => {
        const whole = [{}];
        const denied = !mayUse({ allow: whole, deny }, what, text);
        if (denied) assert.equal(mayUse({ allow, deny }, what, text), false);
        assert.equal(mayUse({ allow, deny: [...deny, { [what]: [text] }] }, what, text), false);
        assert.equal(mayUse({ allow, deny: [...deny, {}] }, what, text), false);
      }),
      RUNS,
    );
  });

  test('nothing is allowed that no rule allows', () => {
    fc.assert(
      fc.property(rules, kind, name, (deny, what, text) =>
        assert.equal(mayUse({ allow: [], deny }, what, text), false),
      ),
      RUNS,
    );
  });

  test('another rule that allows takes nothing away', () => {
    fc.assert(
      fc.property(grantsOf, rule, kind, name, ({ allow, deny }, more, what, text) => {
        const before = mayUse({ allow, deny }, what, text);
        if (before) assert.ok(mayUse({ allow: [more, ...allow], deny }, what, text));
        if (before) assert.ok(mayUse({ allow: [...allow, more], deny }, what, text));
      }),
      RUNS,
    );
  });

  test('a rule covers what it names, and the whole service when it names nothing', () => {
    const may = (grants: Grants) => KINDS.map(what => mayUse(grants, what, 'x'));
    assert.deepEqual(may({ allow: [{}], deny: [] }), [true, true, true]);
    assert.deepEqual(may({ allow: [{ tools: ['*'] }], deny: [] }), [true, false, false]);
    assert.deepEqual(may({ allow: [{}], deny: [{ prompts: ['x'] }] }), [true, false, true]);
    assert.deepEqual(may({ allow: [{ tools: ['x'] }, { resources: ['x'] }], deny: [] }), [true, false, true]);
  });

  test('a name in another spelling is another name', () => {
    const spellings = (text: string) => [
      text.normalize('NFC'),
      text.normalize('NFD'),
      text.normalize('NFKC'),
      text.toUpperCase(),
      text.toLowerCase(),
      encodeURIComponent(text),
      text.replace(/^./su, first => `%${first.charCodeAt(0).toString(16)}`),
      ...[' ', '\t', '\n', '\0', '\u00a0', '\u200b', '/', '.'].flatMap(extra => [text + extra, extra + text]),
    ];
    const letters = fc.constantFrom(
      'a',
      'Z',
      'é',
      'e\u0301',
      'ß',
      'ﬁ',
      'İ',
      'K',
      'ſ',
      '_',
      '-',
      '😀',
      'Å',
      ' ',
    );
    let tried = 0;
    fc.assert(
      fc.property(fc.string({ unit: letters, minLength: 1, maxLength: 6 }), kind, (text, what) => {
        const grants = { allow: [{ [what]: [text] }], deny: [] };
        assert.ok(mayUse(grants, what, text));
        for (const other of spellings(text).filter(spelling => spelling !== text)) {
          tried += 1;
          assert.equal(mayUse(grants, what, other), false, `${JSON.stringify(other)} passed for "${text}"`);
        }
      }),
      RUNS,
    );
    assert.ok(tried > 1000);
  });
});

describe('permissions', () => {
  const policy =
    policyOf(`reader: { allow: [{ service: files, tools: ["read_*"] }], rate_limit: { requests: 10, window_s: 1 }, in_flight: 5 }
writer: { allow: [{ service: files, tools: ["write_*"] }], rate_limit: { requests: 900, window_s: 60 }, quota: { calls: 100, period: day } }
careful: { deny: [{ service: "*", tools: ["*_all"] }] }
banned: { deny: [{ service: files }] }
git: { allow: [{ service: "git*" }], mesh: [register] }
`);

  test('of several roles are their union, less all that any of them denies', () => {
    const { grants } = permissionsOf(policy, ['writer', 'reader', 'careful'], 'files') ?? assert.fail();
    assert.deepEqual(grants, {
      allow: [{ tools: ['read_*'] }, { tools: ['write_*'] }],
      deny: [{ tools: ['*_all'] }],
    });
    assert.deepEqual(
      ['read_a', 'write_a', 'write_all', 'other'].map(tool => mayUse(grants, 'tools', tool)),
      [true, true, false, false],
    );
  });

  test('are none for a service that no role allows, that one denies, or whose name is none', () => {
    for (const [roles, service] of [
      [['reader'], 'github'],
      [[], 'files'],
      [['unknown', '__proto__', 'constructor'], 'files'],
      [['careful'], 'files'],
      [['reader', 'banned'], 'files'],
      [['git'], 'GIT'],
      [['git'], 'git hub'],
      [['git'], 'git%20'],
      [['git'], 'gíthub'],
      [['git'], 'github\n'],
      [['git'], `git${'x'.repeat(61)}`],
    ] as const) {
      assert.equal(permissionsOf(policy, [...roles], service), undefined, `${roles} on ${service}`);
    }
    assert.ok(permissionsOf(policy, ['git'], 'github'));
  });

  test('are the same object for the same roles in any order, and another for another policy', () => {
    const first = permissionsOf(policy, ['reader', 'writer'], 'files');
    assert.equal(permissionsOf(policy, ['writer', 'unknown', 'reader', 'reader'], 'files'), first);
    assert.notEqual(permissionsOf(policy, ['reader'], 'files'), first);
    assert.notEqual(permissionsOf({ ...policy }, ['reader', 'writer'], 'files'), first);
  });

  test('never mix up two callers, whatever roles and services are called', () => {
    const allowed: Record<string, string> = { a: 'x', b: 'xa', ab: 'xab', 'a b': 'xab' };
    const lines = Object.entries(allowed).map(
      ([role, service]) => `${role}: { allow: [{ service: ${service} }] }`,
    );
    const odd = policyOf(lines.join('\n'));
    fc.assert(
      fc.property(
        fc.array(fc.constantFrom('a', 'b', 'ab', 'a b', 'a,b', 'a","b', 'unknown'), { maxLength: 3 }),
        fc.constantFrom('x', 'xa', 'xab', 'xaba'),
        (roles, service) => {
          const expected = roles.some(role => allowed[role] === service);
          assert.equal(permissionsOf(odd, roles, service) !== undefined, expected);
        },
      ),
      RUNS,
    );
  });

  test('of roles that together outgrow the identity header are refused with the cure', () => {
    const names = (letter: string) =>
      Array.from({ length: 150 }, (_, i) => `${letter}_tool_name_${i}`).join(', ');
    const large = policyOf(
      ['a', 'b'].map(role => `${role}: { allow: [{ service: files, tools: [${names(role)}] }] }`).join('\n'),
    );
    assert.ok(permissionsOf(large, ['a'], 'files'));
    for (let i = 0; i < 2; i += 1) {
      assert.throws(
        () => permissionsOf(large, ['a', 'b'], 'files'),
        error =>
          error instanceof MeshError &&
          error.code === 'forbidden' &&
          /the roles a, b together take/.test(error.message),
      );
    }
  });

  test('of a caller with one role more allow no less, when it denies nothing', () => {
    const names = ['read_a', 'write_a', 'x'];
    fc.assert(
      fc.property(
        fc.subarray(['reader', 'writer', 'git']),
        fc.constantFrom('reader', 'writer', 'git'),
        (roles, more) => {
          for (const service of ['files', 'github', 'other']) {
            const before = permissionsOf(policy, roles, service);
            const after = permissionsOf(policy, [...roles, more], service);
            for (const tool of names) {
              if (before && mayUse(before.grants, 'tools', tool))
                assert.ok(after && mayUse(after.grants, 'tools', tool));
            }
          }
        },
      ),
      RUNS,
    );
  });

  test('actions of the mesh need a role that names them', () => {
    assert.deepEqual(
      [
        mayMesh(policy, ['reader', 'git'], 'register'),
        mayMesh(policy, ['git'], 'deregister'),
        mayMesh(policy, ['x'], 'register'),
      ],
      [true, false, false],
    );
  });
});
