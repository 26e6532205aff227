import assert from 'node:assert/strict';
import { describe, type TestContext, test } from 'node:test';
import {
  Client,
  type ClientOptions,
  StreamableHTTPClientTransport,
  type Transport,
  type VersionNegotiationMode,
} from '@modelcontextprotocol/client';
import { type Caller, checkTools, SERVICES, type Services, SINGLE } from './services.ts';
import { checkElicitation, type User } from './user.ts';

const MODES: { mode: VersionNegotiationMode; version: string }[] = [
  { mode: 'legacy', version: '2025-11-25' },
  { mode: 'auto', version: '2026-07-28' },
  { mode: { pin: '2026-07-28' }, version: '2026-07-28' },
];

/** `@modelcontextprotocol/client`, the official SDK that speaks both eras. */
export function officialClientCases(services: () => Services): void {
  for (const { mode, version } of MODES) {
    describe(`@modelcontextprotocol/client, ${JSON.stringify(mode)}`, () => {
      for (const service of SERVICES) {
        test(`lists and calls the tools of ${service}`, async t => {
          const client = await connect(t, services().url(service), mode);
          assert.equal(client.getNegotiatedProtocolVersion(), version);
          await checkTools(service, callerOf(client));
        });
      }

      for (const service of ['legacy', 'modern'] as const) {
        test(`hears of the progress of a call of ${service}`, async t => {
          const client = await connect(t, services().url(service), mode);
          const seen: object[] = [];
          const onprogress = (progress: object) => seen.push(progress);
          await client.callTool({ name: 'test_tool_with_progress' }, { onprogress });
          assert.deepEqual(
            seen,
            [0, 50, 100].map(progress => ({ progress, total: 100 })),
          );
        });
      }

      test('answers what the tools of modern ask', t =>
        checkElicitation(async user => callerOf(await connect(t, services().url('modern'), mode, user))));
    });
  }
  changeCases(services);
}

/** Changes of the tools: a stream that the client asks for in the new era, the session's own in the old one. */
function changeCases(services: () => Services): void {
  test('@modelcontextprotocol/client listens to changes of the tools', async t => {
    const client = await connect(t, services().url(SINGLE), { pin: '2026-07-28' });
    const changed = nextToolChange(client);
    const subscription = await client.listen({ toolsListChanged: true });
    assert.deepEqual(subscription.honoredFilter, { toolsListChanged: true });
    await client.callTool({ name: 'test_trigger_tool_change' });
    await changed;
    await subscription.close();
    assert.equal(await subscription.closed, 'local');
  });

  test('@modelcontextprotocol/client hears of changes of the tools in the old era', async t => {
    const url = new URL(services().url(SINGLE));
    const { promise: listening, resolve: listens } = Promise.withResolvers<void>();
    // connect() does not wait for the stream that it opens, and what changes before is not told.
    const fetch = async (target: string | URL, init?: RequestInit) => {
      const response = await globalThis.fetch(target, init);
      if (init?.method === 'GET' && response.ok) listens();
      return response;
    };
    const transport = new StreamableHTTPClientTransport(url, { fetch });
    const client = await connectOfficialClient(t, transport, 'legacy');
    const changed = nextToolChange(client);
    await listening;
    await client.callTool({ name: 'test_trigger_tool_change' });
    await changed;
  });
}

function connect(t: TestContext, url: string, mode: VersionNegotiationMode, user?: User): Promise<Client> {
  return connectOfficialClient(t, new StreamableHTTPClientTransport(new URL(url)), mode, user);
}

/** Its client over any transport; closed when the test ends. */
export async function connectOfficialClient(
  t: TestContext,
  transport: Transport,
  mode: VersionNegotiationMode,
  user?: User,
): Promise<Client> {
  const options: ClientOptions = { versionNegotiation: { mode } };
  if (user) options.capabilities = { elicitation: {} };
  const client = new Client({ name: 'mcp-mesh-test', version: '1' }, options);
  if (user) client.setRequestHandler('elicitation/create', ({ params }) => user.answer(params));
  await client.connect(transport);
  t.after(() => client.close());
  return client;
}

/** What the checks need of it. */
export function callerOf(client: Client): Caller {
  return {
    listTools: async () => (await client.listTools()).tools.map(({ name }) => name),
    callTool: (name, args) => client.callTool({ name, arguments: args }),
  };
}

function nextToolChange(client: Client): Promise<void> {
  return new Promise(resolve =>
    client.setNotificationHandler('notifications/tools/list_changed', () => resolve()),
  );
}
