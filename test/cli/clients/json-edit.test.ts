import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import { parse } from 'jsonc-parser';
import { claudeCode } from '../../../cli/clients/claude-code.ts';
import { undoEdit } from '../../../cli/clients/json-edit.ts';
import { vscode } from '../../../cli/clients/vscode.ts';

type Servers = Record<string, Record<string, unknown>>;

const ENTRY = { type: 'http', url: 'http://localhost:10010/api/v1/mcp/x', headers: { A: 'b' } };
const NAMES = ['a', 'b b', 'ü"\\', '日本', 'x', ''];

/** Texts as people and programs write them. */
interface Style {
  unit: string;
  eol: string;
  bom: boolean;
  comments: boolean;
  trailing: boolean;
  oneLine: boolean;
  end: string;
}

const style: fc.Arbitrary<Style> = fc.record({
  unit: fc.constantFrom('  ', '    ', '\t', ' '),
  eol: fc.constantFrom('\n', '\r\n'),
  bom: fc.boolean(),
  comments: fc.boolean(),
  trailing: fc.boolean(),
  oneLine: fc.boolean(),
  end: fc.constantFrom('', '\n', '\n\n'),
});
const servers: fc.Arbitrary<Servers> = fc
  .dictionary(
    fc.constantFrom(...NAMES),
    fc.record({ command: fc.string(), args: fc.array(fc.string(), { maxLength: 2 }) }),
    { maxKeys: 4 },
  )
  .map(found => JSON.parse(JSON.stringify(found)) as Servers);

function render(entries: Servers, { unit, eol, bom, comments, trailing, oneLine, end }: Style): string {
  const comment = (text: string) => (comments && !oneLine ? ` // ${text}` : comments ? ` /* ${text} */` : '');
  const line = (depth: number) => (oneLine ? ' ' : `\n${unit.repeat(depth)}`);
  const list = Object.entries(entries).map(([name, entry], i, all) => {
    const comma = i < all.length - 1 || trailing ? ',' : '';
    return `${line(2)}${JSON.stringify(name)}: ${JSON.stringify(entry)}${comma}${comment('here')}`;
  });
  const inner = `{${comment('servers')}${list.join('')}${line(1)}}`;
  const text = `{${line(1)}"first": [1,2 , 3],${line(1)}"mcpServers": ${inner}${trailing ? ',' : ''}${line(0)}}${comment('end')}${end}`;
  return `${bom ? '\ufeff' : ''}${text.replaceAll('\n', eol)}`;
}

function read(text: string): { mcpServers: Servers } {
  const errors: never[] = [];
  const value = parse(text.replace(/^\ufeff/, ''), errors, { allowTrailingComma: true });
  assert.deepEqual(errors, [], text);
  return value;
}

describe('setServer and removeServer', () => {
  test('change the one entry and nothing else, and can be undone to the byte', () => {
    fc.assert(
      fc.property(servers, style, fc.constantFrom(...NAMES), (entries, written, name) => {
        const before = render(entries, written);
        const set = claudeCode.setServer(before, { name }, ENTRY);
        assert.deepEqual(read(set.text).mcpServers, { ...entries, [name]: ENTRY });
        assert.equal(undoEdit(set.text, set.inverse), before);
        assert.equal(set.inverse.length, 1);
        const [{ offset, written: added, former } = { offset: 0, written: '', former: '' }] = set.inverse;
        assert.equal(set.text.slice(0, offset), before.slice(0, offset));
        assert.equal(set.text.slice(offset + added.length), before.slice(offset + former.length));
        // What is replaced is one entry, or blanks.
        assert.ok(former.trim() === '' || former === JSON.stringify(entries[name]), former);

        const gone = claudeCode.removeServer(set.text, { name });
        const { [name]: _gone, ...others } = entries;
        assert.deepEqual(read(gone.text).mcpServers, others);
        assert.equal(undoEdit(gone.text, gone.inverse), set.text);
      }),
      { numRuns: 1000 },
    );
  });

  test('keep indentation and line ends', () => {
    const before = '{\r\n\t"mcpServers": {\r\n\t\t"a": { "command": "x" } // a\r\n\t}\r\n}\r\n';
    const { text } = claudeCode.setServer(before, { name: 'b' }, { url: 'u' });
    assert.equal(
      text,
      '{\r\n\t"mcpServers": {\r\n\t\t"a": { "command": "x" },\r\n\t\t"b": {\r\n\t\t\t"url": "u"\r\n\t\t} // a\r\n\t}\r\n}\r\n',
    );
  });

  test('make what is missing on the way', () => {
    const cases = [
      ['', '{\n  "mcpServers": {\n    "b": {\n      "url": "u"\n    }\n  }\n}\n'],
      ['{}', '{\n  "mcpServers": {\n    "b": {\n      "url": "u"\n    }\n  }\n}'],
      ['{"x":1}', '{"x":1, "mcpServers": {"b":{"url":"u"}}}'],
      ['{ "mcpServers": {/* none */} }', '{ "mcpServers": {/* none */"b": {"url":"u"}} }'],
    ] as const;
    for (const [before, want] of cases) {
      const { text, inverse } = claudeCode.setServer(before, { name: 'b' }, { url: 'u' });
      assert.equal(text, want);
      assert.equal(undoEdit(text, inverse), before);
    }
  });

  test("reach a project's servers and VS Code's", () => {
    const user = '{ "mcpServers": {}, "projects": { "/p": { "mcpServers": { "a": {} } } } }';
    const { text } = claudeCode.setServer(user, { name: 'a', within: ['projects', '/p'] }, { url: 'u' });
    assert.equal(text, user.replace('"a": {}', '"a": {"url":"u"}'));
    assert.equal(
      vscode.setServer('{"servers":{"a":{}}}', { name: 'a' }, { url: 'u' }).text,
      '{"servers":{"a":{"url":"u"}}}',
    );
  });

  test('leave the comments of the neighbours when an entry goes', () => {
    const before =
      '{\n  "mcpServers": {\n    // first\n    "a": {}, // of a\n    // second\n    "b": {} // of b\n  }\n}\n';
    assert.equal(
      claudeCode.removeServer(before, { name: 'b' }).text,
      '{\n  "mcpServers": {\n    // first\n    "a": {} // of a\n    // second\n    // of b\n  }\n}\n',
    );
    assert.equal(claudeCode.removeServer(before, { name: 'c' }).text, before);
    const twice = claudeCode.removeServer('{"mcpServers":{"a":1,"b":2,"a":3}}', { name: 'a' });
    assert.deepEqual(read(twice.text), { mcpServers: { b: 2 } });
  });

  test('refuse what they cannot change, with its place', () => {
    assert.throws(
      () => claudeCode.setServer('{"mcpServers": []}', { name: 'a' }, {}),
      /file:1:16: "mcpServers" is no object/,
    );
    assert.throws(() => claudeCode.setServer('[]', { name: 'a' }, {}), /file:1:1: the file is no object/);
    assert.throws(() => claudeCode.setServer('{\n"a" 1}', { name: 'a' }, {}), /file:2:5: a ":" is missing/);
  });

  test('are not undone over what somebody changed since', () => {
    const { text, inverse } = claudeCode.setServer(
      '{"mcpServers":{"a":{"command":"x"}}}',
      { name: 'a' },
      { url: 'u' },
    );
    assert.throws(() => undoEdit(text.replace('"u"', '"v"'), inverse), /has been changed since/);
  });
});
