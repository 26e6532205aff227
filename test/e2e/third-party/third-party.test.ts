import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { aiSdkCases } from './ai-sdk.ts';
import { inspectorCases } from './inspector.ts';
import { legacyClientCases } from './legacy-client.ts';
import { mcpRemoteCases } from './mcp-remote.ts';
import { officialClientCases } from './official-client.ts';
import { type Entry, recordRequests } from './request-record.ts';
import { foreignHosts } from './sandbox.ts';
import { type Services, startServices } from './services.ts';

describe('clients that others wrote work unchanged', () => {
  const record: Entry[] = [];
  let services: Services | undefined;
  before(async () => {
    recordRequests(entry => record.push(entry));
    services = await startServices();
  });
  after(() => services?.stop());
  const started = () => {
    assert.ok(services, 'the mesh did not start');
    return services;
  };

  officialClientCases(started);
  legacyClientCases(started);
  aiSdkCases(started);
  mcpRemoteCases(started);
  inspectorCases(started);

  test('the clients in this process spoke to the gateway and to nobody else', () => {
    const origins = record.flatMap(entry => (entry.kind === 'request' ? [entry.origin] : []));
    assert.deepEqual([...new Set(origins)], [started().origin]);
    assert.deepEqual(foreignHosts(record), []);
  });
});
