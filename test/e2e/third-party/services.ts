import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { stringify } from 'yaml';
import { MCP_PATH } from '../../../mesh/names.ts';
import { FIXED_RESULTS, TOOLS } from '../../fixtures/conformance/tools.ts';
import { type Mesh, startMesh } from '../mesh-process.ts';

/** What is hosted: a server that knows only 2025-11-25, one that speaks 2026-07-28 too, and one from npm. */
export const SERVICES = ['legacy', 'modern', 'everything'] as const;

export type ServiceName = (typeof SERVICES)[number];

/** The `modern` server once more with one instance: whoever listens there hears of every change. */
export const SINGLE = 'modern-single';

/** Of the 2026-07-28 revision. */
const HEADER_MISMATCH = -32020;
const EVERYTHING = fileURLToPath(
  import.meta.resolve('@modelcontextprotocol/server-everything/dist/index.js'),
);

export interface Services {
  /** The URL that a user puts into a client's configuration. */
  url(service: ServiceName | typeof SINGLE): string;
  /** Scheme, host and port of the gateway. */
  origin: string;
  stop(): Promise<void>;
}

/** Starts the mesh with them; two instances each, unless the name says otherwise. */
export async function startServices(): Promise<Services> {
  const folder = mkdtempSync(join(tmpdir(), 'third-party-'));
  const remove = () => rmSync(folder, { recursive: true });
  const registry = join(folder, 'registry.yaml');
  const instances = 2;
  const mcp_services = [
    { name: 'legacy', args: [fixture('legacy')], instances },
    { name: 'modern', args: [fixture('modern')], instances },
    { name: 'everything', args: [EVERYTHING], instances },
    { name: SINGLE, args: [fixture('modern')], instances: 1 },
  ].map(service => ({ ...service, command: process.execPath }));
  writeFileSync(registry, stringify({ version: 1, mcp_services }));
  const mesh = await startMesh({ MESH_REGISTRY: registry }).catch(error => {
    remove();
    throw error;
  });
  const stop = async () => {
    await mesh.stop();
    remove();
  };
  try {
    for (const { name, instances } of mcp_services) await checkHealth(mesh, name, instances);
  } catch (error) {
    await stop();
    throw error;
  }
  const url = (service: string) => `${mesh.url}${MCP_PATH}/${service}`;
  return { url, origin: new URL(mesh.url).origin, stop };
}

/** What every client can do, whatever it calls it. */
export interface Caller {
  /** Names of the tools that it found. */
  listTools(): Promise<string[]>;
  callTool(name: string, args: Record<string, unknown>): Promise<{ content?: unknown }>;
}

/**
 * Lists the tools and calls some, with and without arguments.
 * @param options.mirrors whether the client repeats marked arguments in headers, as those of the new era must
 * @throws AssertionError when an answer is not the server's
 */
export async function checkTools(
  service: ServiceName,
  client: Caller,
  { mirrors = true } = {},
): Promise<void> {
  const names = (await client.listTools()).sort();
  if (service === 'everything') {
    for (const name of ['echo', 'get-sum']) assert.ok(names.includes(name), names.join());
    const { content } = await client.callTool('echo', { message: 'Grüße, 世界 👋' });
    assert.deepEqual(content, [{ type: 'text', text: 'Echo: Grüße, 世界 👋' }]);
    return;
  }
  assert.deepEqual(names, TOOLS.map(({ name }) => name).sort());
  const mixed = await client.callTool('test_multiple_content_types', {});
  assert.deepEqual(mixed.content, FIXED_RESULTS.test_multiple_content_types.content);
  const call = client.callTool('test_header_parameter', { region: 'eu-west' });
  // Forwarding it all the same would let a client tell headers and body different stories.
  if (!mirrors) return assert.rejects(call, { code: HEADER_MISMATCH });
  assert.deepEqual((await call).content, [{ type: 'text', text: 'Region: eu-west' }]);
}

/** A mesh is ready, too, when its servers do not work: that must not look like a client's fault. */
async function checkHealth(mesh: Mesh, service: string, instances: number): Promise<void> {
  const response = await fetch(`${mesh.url}${MCP_PATH}/${service}/status`);
  const { healthy } = (await response.json()) as { healthy?: number };
  assert.equal(healthy, instances, `${service} is not up:\n${mesh.output()}`);
}

function fixture(name: string): string {
  return fileURLToPath(new URL(`../../fixtures/conformance/${name}.ts`, import.meta.url));
}
