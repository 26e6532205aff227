import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { mergeRegistry } from '../../../cli/import/merge-registry.ts';
import { loadRegistry, parseRegistry } from '../../../mesh/registry.ts';

const NEW = { name: 'new', command: 'npx', args: ['-y', 'x'], env: { A: '${A:-1}', B: 'no' } };

function namesIn(text: string): string[] {
  return parseRegistry(text, 'r', { env: {}, only: '' }).services.map(({ name }) => name);
}

function add(text: string | undefined, comment?: string): string {
  return mergeRegistry(text, [{ kind: 'add', entry: NEW, comment }], 'r');
}

describe('a registry that is added to', () => {
  test('keeps every line that it has', () => {
    const before = readFileSync('config/mcp-mesh-registry.yaml', 'utf8');
    const after = add(before, 'From .mcp.json, not carried over: x');
    assert.ok(after.startsWith(before));
    assert.equal(
      after.slice(before.length),
      '\n  # From .mcp.json, not carried over: x\n  - name: new\n    command: npx\n    args: [-y, x]\n    env:\n      A: ${A:-1}\n      B: no\n',
    );
    const service = parseRegistry(after, 'r', { env: {} }).services.at(-1);
    assert.deepEqual([service?.args, service?.env], [['-y', 'x'], { A: '1', B: 'no' }]);
    assert.equal(
      service?.timeout_ms,
      loadRegistry('config/mcp-mesh-registry.yaml', { env: {} }).services[0]?.timeout_ms,
    );
  });

  test('may be written in any style', () => {
    const item = '{ name: old, command: x } # of old';
    const texts = [
      `mcp_services:\n- name: old # of old\n  command: x\n  args: ["a",  'b']\n`,
      `mcp_services:\n    -   name: old\n        command: x`,
      `# top\nmcp_services:\n  - ${item}\n# between\ndefaults: {timeout_ms:   5} # odd\n\n# end\n`,
      `mcp_services: [${item.replace(' # of old', '')}] # flow\n`,
      `mcp_services:\r\n  - name: old\r\n    command: x\r\n\r\n  - name: other\r\n    command: y\r\n`,
      '\ufeffmcp_services:\n  - name: old\n    command: |\n      x\n',
      'version: 1\nmcp_services:\n',
      'version: 1\nmcp_services: [] # none yet\n',
    ];
    for (const text of texts) {
      const old = namesIn(text.replace(/mcp_services:\n?$/, 'mcp_services: []'));
      const after = add(text);
      assert.deepEqual(namesIn(after), [...old, 'new'], after);
      const comments = text.match(/#.*/g) ?? [];
      assert.deepEqual(
        (after.match(/#.*/g) ?? []).map(line => line.trim()),
        comments.map(line => line.trim()),
        after,
      );
      if (text.includes('\r\n')) assert.doesNotMatch(after, /[^\r]\n/);
      if (!text.includes('[')) {
        const rest = text
          .trimEnd()
          .split(/\r?\n/)
          .filter(line => !after.includes(line));
        assert.deepEqual(rest, [], after);
      }
    }
  });

  test('is made when there is none', () => {
    assert.match(
      add(undefined),
      /^# The MCP servers of this mesh\.\nversion: 1\nmcp_services:\n {2}- name: new\n/,
    );
  });

  test('cannot get a line of its own from a comment', () => {
    const after = add('mcp_services: []\n', 'a\n- name: evil\r  command: x\u2028y');
    assert.deepEqual(namesIn(after), ['new']);
  });

  test('is not written when the result could not be used', () => {
    const entry = { name: 'old', command: 'y' };
    assert.throws(
      () =>
        mergeRegistry('mcp_services:\n  - name: old\n    command: x\n', [{ kind: 'add', entry }], 'r.yaml'),
      /r\.yaml \(as changed\):\d+: .*already/,
    );
  });
});

describe('a service that is replaced', () => {
  const text = `mcp_services:
  # before
  - name: old # the name
    command: x # the command
    args: [ "a" ]
    cwd: /old
    instances: 3 # tuned
    env:
      # why
      A: "1"
  - {name: other,   command: y}
`;

  test('gets what starts it, and keeps all else', () => {
    const entry = { name: 'old', command: 'x', args: ['b'], env: { B: '2' } };
    const after = mergeRegistry(text, [{ kind: 'replace', entry }], 'r');
    assert.equal(
      after,
      `mcp_services:
  # before
  - name: old # the name
    command: x # the command
    args: [b]
    instances: 3 # tuned
    env:
      B: "2"
  - {name: other,   command: y}
`,
    );
  });

  test('gets a legacy_url and nothing else', () => {
    const entry = { name: 'other', legacy_url: 'https://old.example/mcp' };
    const after = mergeRegistry(text, [{ kind: 'replace', entry }], 'r');
    const [, other] = parseRegistry(after, 'r', { env: {} }).services;
    assert.deepEqual([other?.command, other?.legacy_url], ['y', 'https://old.example/mcp']);
  });
});
