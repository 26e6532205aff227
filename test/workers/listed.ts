import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { adHocService, type Service } from '../../mesh/registry.ts';
import { ready, startTestWorker, type TestWorker } from './helpers.ts';

const LISTED = fileURLToPath(new URL('../fixtures/servers/listed.mjs', import.meta.url));

/** A service whose server lists these tools; `env` as the fixture has it. */
export function listedService(
  tools: readonly object[],
  env: { ERA?: 'legacy' | 'modern'; PAGE?: string } = {},
  overrides: Partial<Service> = {},
): Service {
  return {
    ...adHocService({ name: 'listed', command: process.execPath, args: [LISTED] }),
    env: { ...env, TOOLS: JSON.stringify(tools) },
    ...overrides,
  };
}

/** A worker in this process that hosts it, once it is ready. */
export async function startListed(
  t: TestContext,
  ...service: Parameters<typeof listedService>
): Promise<TestWorker> {
  const worker = await startTestWorker(t, listedService(...service));
  await ready(worker);
  return worker;
}
