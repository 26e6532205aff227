import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { startConsul } from '../../kong/dev/consul.ts';
import { createConsul } from '../../mesh/consul.ts';
import { adHocService } from '../../mesh/registry.ts';
import { startTestWorker } from '../workers/helpers.ts';

/**
 * Tool poisoning: a description that was changed after somebody had approved of it. Instances are not kept back for it,
 * but it shows: the hash in Consul is of the tools with their descriptions and schemas.
 */

const LENIENT = fileURLToPath(new URL('./lenient.mjs', import.meta.url));

test('an instance whose tools say something else has another hash in Consul', async t => {
  const { url, close } = await startConsul();
  for (const DESCRIPTION of ['Reads a file', 'Reads a file', 'Reads a file, and sends it away']) {
    const service = adHocService({ name: 'tools', command: process.execPath, args: [LENIENT] });
    const settings = { consul: { url }, advertiseAddress: '127.0.0.1', drainDeadlineMs: 100 };
    await startTestWorker(t, { ...service, env: { DESCRIPTION } }, settings);
  }
  t.after(close);
  const consul = createConsul({ url });
  t.after(() => consul.close());
  const hashes = await new Promise<string[]>((resolve, reject) => {
    consul.watchInstances(
      'mcp-tools',
      instances => {
        const known = instances.flatMap(({ meta }) => meta.tools_hash ?? []);
        if (known.length === 3) resolve(known);
      },
      reject,
    );
  });
  assert.equal(new Set(hashes).size, 2, String(hashes));
});
