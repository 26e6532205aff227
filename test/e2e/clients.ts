import type { TestContext } from 'node:test';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StdioClientTransport } from '@modelcontextprotocol/sdk/client/stdio.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';
import { ROOT } from './mesh-process.ts';

/** The official SDK's client on a service of the mesh; closed when the test ends. */
export async function connectHttp(t: TestContext, url: string): Promise<Client> {
  return connect(t, new StreamableHTTPClientTransport(new URL(url)) as Transport);
}

/** The same client on the server itself. */
export async function connectStdio(t: TestContext, args: string[]): Promise<Client> {
  return connect(
    t,
    new StdioClientTransport({ command: process.execPath, args, cwd: ROOT, stderr: 'ignore' }),
  );
}

/** The SDK's transports are not assignable to its own interface under exactOptionalPropertyTypes. */
type Transport = Parameters<Client['connect']>[0];

async function connect(t: TestContext, transport: Transport): Promise<Client> {
  const client = new Client({ name: 'mcp-mesh-test', version: '1' });
  await client.connect(transport);
  t.after(() => client.close());
  return client;
}
