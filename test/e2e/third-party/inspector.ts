import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, type TestContext, test } from 'node:test';
import { promisify } from 'node:util';
import { ROOT } from '../mesh-process.ts';
import { createSandbox, foreignHosts, versionsOf } from './sandbox.ts';
import { type Caller, checkTools, SERVICES, type Services } from './services.ts';

const PROGRAM = join(ROOT, 'node_modules/.bin/mcp-inspector');
const DEADLINE_MS = 20_000;

const MODES = [
  { desc: 'by URL', era: undefined, versions: ['', '2025-11-25'] },
  { desc: 'by config file, era auto', era: 'auto', versions: ['2026-07-28'] },
  { desc: 'by config file, era modern', era: 'modern', versions: ['2026-07-28'] },
];

/** `@modelcontextprotocol/inspector --cli`: one process per command. */
export function inspectorCases(services: () => Services): void {
  for (const { desc, era, versions } of MODES) {
    describe(`@modelcontextprotocol/inspector --cli ${desc}`, () => {
      for (const service of SERVICES) {
        test(`lists and calls the tools of ${service}`, async t => {
          await checkTools(service, inspector(t, services().url(service), era, versions));
        });
      }
    });
  }
}

function inspector(t: TestContext, url: string, era: string | undefined, versions: string[]): Caller {
  const { folder, env, record, remove } = createSandbox();
  t.after(remove);
  const config = join(folder, 'mcp.json');
  const server = { type: 'streamable-http', url, protocolEra: era };
  writeFileSync(config, JSON.stringify({ mcpServers: { mesh: server } }));
  const target = era ? ['--config', config, '--server', 'mesh'] : [url, '--transport', 'http'];
  const run = async (...args: string[]) => {
    const argv = [PROGRAM, '--cli', ...target, '--format', 'json', ...args];
    const { stdout } = await promisify(execFile)(process.execPath, argv, { env, timeout: DEADLINE_MS });
    assert.deepEqual(versionsOf(record(), url), versions);
    assert.deepEqual(foreignHosts(record()), []);
    return JSON.parse(stdout);
  };
  return {
    async listTools() {
      const { result } = await run('--method', 'tools/list');
      return result.tools.map(({ name }: { name: string }) => name);
    },
    async callTool(name, args) {
      const json = JSON.stringify(args);
      return (await run('--method', 'tools/call', '--tool-name', name, '--tool-args-json', json)).result;
    },
  };
}
