import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../../kong/dev/consul.ts';
import type { Gateway } from '../../kong/dev/gateway.ts';
import { installPlugin, startPluginGateway } from '../plugin-gateway.ts';
import { readAnswer, ready, scriptedService, startTestWorker } from '../workers/helpers.ts';

/** The real plugin in the real plugin server, behind the gateway stand-in, with one worker. */
async function startMesh(t: TestContext): Promise<Gateway> {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-plugin-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const consul = await startConsul();
  t.after(consul.close);
  const worker = await startTestWorker(t, scriptedService(), {
    consul: { url: consul.url },
    advertiseAddress: '127.0.0.1',
  });
  await ready(worker);
  const gateway = await startPluginGateway(await installPlugin(folder), {
    PATH: process.env.PATH ?? '',
    CONSUL_HTTP_ADDR: consul.url,
    MESH_ACCESS_POLICY: fileURLToPath(new URL('../../config/access.yaml', import.meta.url)),
  });
  t.after(gateway.close);
  return gateway;
}

test('two PDK round trips decide, one learns how it went: routed or answered', async t => {
  const gateway = await startMesh(t);
  const execute = () =>
    fetch(`${gateway.url}/api/v1/mcp/scripted/execute`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '{"command":"echo","params":{"text":"hi"}}',
    }).then(readAnswer);
  let answer = await execute();
  while (answer.status === 503) {
    await pause(100);
    answer = await execute();
  }
  assert.equal(answer.json.content[0].text, 'hi');
  for (const path of [
    '/api/v1/mcp',
    '/api/v1/mcp/scripted/status',
    '/api/v1/mcp/unknown',
    '/api/v1/mcp/scripted/nope',
  ]) {
    await readAnswer(await fetch(`${gateway.url}${path}`));
  }
  const before = gateway.pdkCalls().access.length;
  while (gateway.pdkCalls().log.length < before) await pause(20);
  const { access, log } = gateway.pdkCalls();
  assert.ok(access.length >= 5);
  assert.deepEqual([...new Set(access)], [2]);
  assert.deepEqual([...new Set(log)], [1]);
});
