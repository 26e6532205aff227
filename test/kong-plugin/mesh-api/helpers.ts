import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { startConsul } from '../../../kong/dev/consul.ts';
import { createDiscovery, type Discovery, type KnownService } from '../../../kong-plugin/discovery.ts';
import { createMeshApi } from '../../../kong-plugin/mesh-api.ts';
import { parseAccessPolicy } from '../../../mesh/access-policy.ts';
import type { Consul, Instance } from '../../../mesh/consul.ts';
import { MeshError } from '../../../mesh/errors.ts';
import { openConsul } from '../../kong/consul-helpers.ts';

export const DEADLINE_MS = 20_000;
const PATH = '/api/v1/mesh/v2';
export const { policy: POLICY } = parseAccessPolicy(
  `
allowed_networks: [127.0.0.0/8, "::1/128", 10.0.0.0/8, fd12::/16]
roles:
  operator: { allow: [{ service: "*" }], mesh: [register, deregister] }
  owner: { allow: [{ service: "github" }, { service: "my_files" }], mesh: [register, deregister] }
  stranger: { allow: [{ service: "other" }], mesh: [register, deregister] }
  reader: { allow: [{ service: "github" }] }
`,
  { path: 'access.yaml' },
);
export const OPERATOR = { principal: 'key:operator', roles: ['operator'] };
export const OWNER = { principal: 'key:owner', roles: ['owner'] };
export const STRANGER = { principal: 'key:stranger', roles: ['stranger'] };
export const READER = { principal: 'key:reader', roles: ['reader'] };
export const NOW = Date.parse('2026-11-22T12:00:00Z');

export const BODY = { service_id: 'github-1', service_name: 'mcp-github', address: '10.0.0.7', port: 11_100 };

export interface Ask {
  method?: string;
  query?: string;
  body?: unknown;
  caller?: typeof OPERATOR;
}

export interface ApiOptions {
  resolve?: (host: string) => Promise<string[]>;
  discovery?: Discovery;
  policy?: typeof POLICY | undefined;
}

export function createApi(consul: Consul, discovery: Discovery, { resolve, ...options }: ApiOptions = {}) {
  const logged: string[] = [];
  const api = createMeshApi({
    discovery,
    consul,
    policy: () => ('policy' in options ? options.policy : POLICY),
    resolve: resolve ?? (() => Promise.resolve([])),
    status: ({ name, instances }) => ({
      service: name,
      instances: instances.length,
      details: instances.map(({ id, status }) => ({ id, state: status })),
    }),
    now: () => NOW,
    log: text => logged.push(text),
  });
  /** The answer, or the code and text of the error. */
  const ask = async (path: string, { method = 'GET', query = '', body, caller = OPERATOR }: Ask = {}) => {
    const text = typeof body === 'object' ? JSON.stringify(body) : (body as string | undefined);
    try {
      const { status, value } = await api.handle({ method, path: PATH + path, query, body: text, caller });
      return {
        status,
        value: JSON.parse(JSON.stringify(value)) as Record<string, unknown>,
        code: '',
        detail: '',
      };
    } catch (error) {
      assert.ok(error instanceof MeshError, String(error));
      return { status: error.status, value: {}, code: error.code as string, detail: error.message };
    }
  };
  const register = (changes: object = {}, caller = OPERATOR) =>
    ask('/register', { method: 'POST', body: { ...BODY, ...changes }, caller });
  const deregister = (id: string, caller = OPERATOR) =>
    ask(`/deregister/${id}`, { method: 'DELETE', caller });
  return { ask, register, deregister, logged };
}

export async function setUp(t: TestContext, url: string, options: ApiOptions = {}) {
  const consul = openConsul(t, url);
  const reader = openConsul(t, url);
  const discovery = createDiscovery({ consul: reader, onInstances: () => {}, onError: () => {} });
  t.after(() => discovery.close());
  await discovery.ready(DEADLINE_MS);
  return { consul, discovery, ...createApi(consul, discovery, options) };
}

export async function startStandIn(
  t: TestContext,
  options: Parameters<typeof startConsul>[0] = {},
): Promise<string> {
  const { url, close } = await startConsul(options);
  t.after(close);
  return url;
}

export async function listen(t: TestContext, listener: RequestListener): Promise<number> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

export function findInstance(discovery: Discovery, id: string): Instance | undefined {
  return discovery
    .list()
    .flatMap(({ instances }) => instances)
    .find(instance => instance.id === id);
}

/** Cases that any Consul has to bear out; each with a service of its own. */

/** A discovery that knows these services, and a Consul that must not be asked. */
export function staticApi(services: KnownService[], options: ApiOptions = {}, consul?: Partial<Consul>) {
  const discovery: Discovery = {
    ready: () => Promise.resolve(),
    find: name => services.find(service => service.name === name),
    list: () => services,
    age: () => 5,
    close() {},
  };
  const touched = () => Promise.reject(new Error('Consul was asked'));
  return createApi({ register: touched, deregister: touched, ...consul } as Consul, discovery, options);
}

export function service(name: string, definition: object = {}, instances: Instance[] = []): KnownService {
  return { name, definition: { ...definition }, instances };
}

export function instance(id: string, changes: Partial<Instance> = {}): Instance {
  return {
    id,
    service: 'mcp-github',
    node: 'node-a',
    address: '10.0.0.1',
    port: 1,
    tags: ['mcp'],
    meta: { mcp_server: 'github' },
    weights: { passing: 1, warning: 1 },
    status: 'passing',
    reason: '',
    ...changes,
  };
}
