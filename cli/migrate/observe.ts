import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import type { ServerInfo } from '../../workers/handshake.ts';
import type { Answer, Side } from './side.ts';

/** What a server offers: its items by the member that names them. */
export const LISTS = {
  tools: { method: 'tools/list', capability: 'tools', member: 'tools', key: 'name', noun: 'tool' },
  prompts: { method: 'prompts/list', capability: 'prompts', member: 'prompts', key: 'name', noun: 'prompt' },
  resources: {
    method: 'resources/list',
    capability: 'resources',
    member: 'resources',
    key: 'uri',
    noun: 'resource',
  },
  templates: {
    method: 'resources/templates/list',
    capability: 'resources',
    member: 'resourceTemplates',
    key: 'uriTemplate',
    noun: 'template',
  },
} as const;

export type ListName = keyof typeof LISTS;

/** All that a server says of itself. */
export interface Observation {
  info: ServerInfo;
  lists: Record<ListName, Listing>;
}

export interface Listing {
  items: JsonObject[];
  /** The server's own words, when it refused to list. */
  error?: string;
}

/** A cursor that leads nowhere new must not be followed for ever. */
const PAGES_MAX = 1000;
const METHOD_NOT_FOUND = -32601;

/** Asks for everything that the server declares. @throws MeshError when it does not answer */
export async function observe(side: Side): Promise<Observation> {
  const [tools, prompts, resources, templates] = [
    await list(side, 'tools'),
    await list(side, 'prompts'),
    await list(side, 'resources'),
    await list(side, 'templates'),
  ];
  return { info: side.info, lists: { tools, prompts, resources, templates } };
}

async function list(side: Side, name: ListName): Promise<Listing> {
  const { method, capability, member } = LISTS[name];
  if (side.info.capabilities[capability] === undefined) return { items: [] };
  const items: JsonObject[] = [];
  let params: JsonObject = {};
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const answer = await side.ask(method, params);
    if (answer.error) return refusal(items, answer);
    const { result } = answer;
    const found = isObject(result) && Array.isArray(result[member]) ? result[member] : [];
    items.push(...found.filter(isObject));
    const cursor = isObject(result) ? result.nextCursor : undefined;
    if (typeof cursor !== 'string') break;
    params = { cursor };
  }
  return { items };
}

/** Servers declare resources and know no templates. */
function refusal(items: JsonObject[], { error = {} }: Answer): Listing {
  return error.code === METHOD_NOT_FOUND ? { items } : { items, error: String(error.message) };
}
