import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { FleetService } from '../../e2e/fleet-harness.ts';

const PROGRAM = fileURLToPath(new URL('../../fixtures/servers/described.mjs', import.meta.url));

const reading = { readOnlyHint: true };
const schema = (properties: object = {}, required: string[] = []) => ({
  type: 'object',
  properties,
  required,
});

/** What a server of the fixture says of itself. */
export const DESCRIBED = {
  serverInfo: { name: 'described', version: '1.0.0', title: 'Described' },
  capabilities: { tools: {}, prompts: {}, resources: {} },
  instructions: 'Ask me.',
  tools: [
    { name: 'now', description: 'Tells the time', inputSchema: schema(), annotations: reading },
    {
      name: 'find',
      description: 'Finds',
      inputSchema: schema({ text: { type: 'string', examples: ['x'] }, most: { type: 'number' } }, ['text']),
      annotations: reading,
    },
    { name: 'wipe', description: 'Deletes', inputSchema: schema() },
  ],
  prompts: [{ name: 'greet', description: 'Greets', arguments: [{ name: 'who', required: true }] }],
  resources: [{ uri: 'file:///a', name: 'a', mimeType: 'text/plain' }],
  resourceTemplates: [{ uriTemplate: 'file:///{path}', name: 'files' }],
  answers: { now: '{"zone":"UTC","time":"NOW"}', find: 'found x at NOW in all' },
};

export type Described = typeof DESCRIBED & { era?: string };

/** As a service of the mesh. */
export function describedService(name: string, server: Described, registry: object = {}): FleetService {
  const command = { command: process.execPath, args: [PROGRAM] };
  return { name, workers: 1, registry: { ...command, ...registry }, env: { SERVER: JSON.stringify(server) } };
}

/** As the entry of a client's configuration file. */
export function describedEntry(server: Described): object {
  return { command: process.execPath, args: [PROGRAM], env: { SERVER: JSON.stringify(server) } };
}

/** A `.mcp.json` of Claude Code's with these entries; its path. */
export function writeMcpJson(folder: string, servers: Readonly<Record<string, object>>): string {
  const path = join(folder, '.mcp.json');
  writeFileSync(path, JSON.stringify({ mcpServers: servers }, null, 2));
  return path;
}
