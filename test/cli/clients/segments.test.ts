import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { claudeCode } from '../../../cli/clients/claude-code.ts';
import { claudeDesktop } from '../../../cli/clients/claude-desktop.ts';
import type { ClientFormat } from '../../../cli/clients/client-format.ts';
import { cursor } from '../../../cli/clients/cursor.ts';
import { vscode } from '../../../cli/clients/vscode.ts';
import { parseSegments, toRegistryText } from '../../../cli/import/segments.ts';
import { parseRegistry } from '../../../mesh/registry.ts';

/** Every variable is set, to what must not be filled in again. */
const value = (name: string) => `<\${A}${name}>`;
const ENV: Record<string, string | undefined> = new Proxy(
  {},
  { get: (_target, name) => (name === 'DOLLAR' ? undefined : value(String(name))) },
);
const PIECES = [
  '${',
  '}',
  '$',
  '{',
  'A',
  'B',
  ':-',
  'env:',
  'x',
  '${A}',
  '${env:A}',
  '${A:-x}',
  '${env:B}',
  '${/}',
  '$$',
  ' ',
  '-',
];

const text = fc.array(fc.constantFrom(...PIECES), { maxLength: 8 }).map(pieces => pieces.join(''));

/** What the worker gives to the server. */
function filled(registryText: string, env = ENV): string {
  const entry = { name: 's', command: 'c', args: [registryText] };
  const { services } = parseRegistry(JSON.stringify({ version: 1, mcp_services: [entry] }), 'r', {
    env,
  });
  return services[0]?.args[0] ?? '';
}

function translated(format: ClientFormat, source: string): string {
  return filled(toRegistryText(parseSegments(source, format.variable)));
}

function assertAll(format: ClientFormat, expand: (source: string) => string): void {
  fc.assert(
    fc.property(text, source => assert.equal(translated(format, source), expand(source))),
    { numRuns: 2000 },
  );
}

describe("a text in the registry's syntax", () => {
  test('reaches the server as it is, from a client without variables', () => {
    assertAll(claudeDesktop, source => source);
  });

  test("is what Claude Code's expansion makes of it", () => {
    assertAll(claudeCode, source =>
      source.replace(/\$\{([A-Za-z_]\w*)(?::-[^}]*)?\}/g, (_all, name: string) => value(name)),
    );
    const registryText = toRegistryText(parseSegments('${A:-a b}${B:-}', claudeCode.variable));
    assert.equal(filled(registryText, {}), 'a b');
  });

  test("is what the editors' expansion makes of it", () => {
    const expand = (source: string) =>
      source.replace(/\$\{(?:env:([A-Za-z_]\w*)|\/)\}/g, (_all, name: string | undefined) =>
        name === undefined ? '/' : value(name),
      );
    assertAll(cursor, expand);
    assertAll(vscode, expand);
  });

  test('has names that variables may have', () => {
    const names = (source: string) => toRegistryText(parseSegments(source, vscode.variable));
    assert.equal(names('${input:my-token}'), '${MY_TOKEN}');
    assert.equal(names('${input:1st key}'), '${_1ST_KEY}');
    assert.equal(names('${input:é}'), '${VALUE}');
    assert.equal(names('${config:aB.cD}'), '${A_B_C_D}');
    assert.equal(names('${workspaceFolder:front-end}'), '${WORKSPACE_FOLDER_FRONT_END}');
  });
});
