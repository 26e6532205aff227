import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { parse } from 'yaml';
import { findProgram, skipWithout } from '../real-program.ts';
import { KONG_YML } from './gateway-helpers.ts';

/** handoff.test.ts runs the same Lua in the stand-in's interpreter, which is of Lua 5.3; Kong's is of 5.1. */

const RUNNER = join(import.meta.dirname, 'fake-pdk.lua');
const CASES = 11;
const lua = findProgram('lua5.1', { variable: 'MESH_LUA_BIN', install: 'lua5.1' });

test('kong.yml’s Lua under Lua 5.1', { skip: skipWithout(lua) }, t => {
  assert.ok(lua.binary);
  assert.deepEqual(
    run(lua.binary, chunksOfKongYml(t)).filter(line => !line.startsWith('ok ')),
    [],
  );
  const broken = chunksOfKongYml(t, text =>
    text.replace('name:find("^x%-mesh%-")', 'name:find("^x%-nothing%-")'),
  );
  const faults = run(lua.binary, broken).filter(line => line.startsWith('not ok '));
  assert.equal(faults.length, 2, `a fault in each access phase is found: ${faults.join('\n')}`);
});

/** A line for each case. */
function run(binary: string, folder: string): string[] {
  const lines = execFileSync(binary, [RUNNER, folder], { encoding: 'utf8' }).trim().split('\n');
  assert.equal(lines.length, CASES, lines.join('\n'));
  return lines;
}

/** Each phase of pre-function and post-function as a file of its own. */
function chunksOfKongYml(t: TestContext, change = (text: string) => text): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-lua-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const { services } = parse(readFileSync(KONG_YML, 'utf8'));
  for (const { name, config } of services[0].plugins) {
    if (!name.endsWith('-function')) continue;
    for (const [phase, [chunk]] of Object.entries(config as Record<string, [string]>))
      writeFileSync(join(folder, `${name}.${phase}.lua`), change(chunk));
  }
  return folder;
}
