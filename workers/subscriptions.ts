import type { Logger } from 'pino';
import { META } from '../mesh/eras.ts';
import { changeObject } from '../mesh/json-text.ts';
import type { RpcResponse } from '../mesh/jsonrpc.ts';
import { isObject, type JsonObject, type RpcNotification } from '../mesh/jsonrpc.ts';
import type { ServerInfo } from './connection.ts';
import { type CallOptions, resultOf } from './multiplexer.ts';

/** What a subscriber wants to hear (2026-07-28, subscriptions/listen). */
export interface Filter {
  toolsListChanged?: boolean;
  promptsListChanged?: boolean;
  resourcesListChanged?: boolean;
  resourceSubscriptions?: readonly string[];
}

export interface Subscriber {
  filter(): Filter;
  /** An update may name a part of what is followed, and that part may be out of its reach. */
  mayRead(uri: string): boolean;
  /** The notification as the server wrote it, without its own subscription id. */
  tell(text: string): void;
}

export interface Subscriptions {
  /** A notification of the server's that belongs to no call. */
  publish(notification: RpcNotification): void;
  /** Subscribes until the returned function is called. */
  add(subscriber: Subscriber): () => void;
  /** A subscriber's filter has changed. */
  changed(): void;
  /** What of a filter this server can honour. */
  honoured(filter: Filter): Filter;
  /** The server is another process: what was asked of the old one is asked again. */
  renew(): void;
}

interface Source {
  readonly info: ServerInfo | undefined;
  ask(method: string, params: JsonObject, options: CallOptions): Promise<RpcResponse>;
}

const CHANGES = new Map<string, keyof Filter>([
  ['notifications/tools/list_changed', 'toolsListChanged'],
  ['notifications/prompts/list_changed', 'promptsListChanged'],
  ['notifications/resources/list_changed', 'resourcesListChanged'],
]);
const ASK_TIMEOUT_MS = 10_000;
/** An open listen is a call without an end; Node's longest timer stands for "never". */
const FOREVER_MS = 2_147_483_647;

/**
 * One server's changes, told to each who asked for them and once: the sum of all filters is subscribed to upstream,
 * by `resources/subscribe` for each URI at a legacy server, by one `subscriptions/listen` at a modern one.
 */
export function createSubscriptions(server: Source, log: Logger): Subscriptions {
  const subscribers = new Set<Subscriber>();
  let subscribed = new Set<string>();
  let listening = { filter: '', stop: () => {} };

  const publish = ({ method, params, text }: RpcNotification) => {
    const change = CHANGES.get(method);
    const bare = withoutSubscriptionId(text, params);
    for (const subscriber of subscribers) {
      const filter = subscriber.filter();
      const wanted = change
        ? filter[change] === true
        : method === UPDATED && follows(filter, String(params.uri)) && subscriber.mayRead(String(params.uri));
      if (wanted) subscriber.tell(bare);
    }
  };

  const refresh = () => {
    const all = union([...subscribers].map(subscriber => subscriber.filter()));
    if (server.info?.era === 'modern') listenTo(all);
    else if (server.info) follow(new Set(all.resourceSubscriptions));
  };

  const follow = (wanted: Set<string>) => {
    for (const uri of subscribed.difference(wanted)) ask('resources/unsubscribe', { uri });
    for (const uri of wanted.difference(subscribed)) ask('resources/subscribe', { uri });
    subscribed = wanted;
  };

  /** The new listen first, then the end of the old one: nothing falls between them. */
  const listenTo = (filter: Filter) => {
    const text = JSON.stringify(filter);
    if (text === listening.filter) return;
    const previous = listening;
    const ended = new AbortController();
    listening = { filter: text, stop: () => ended.abort() };
    if (text !== '{}')
      ask('subscriptions/listen', { notifications: filter }, { timeoutMs: FOREVER_MS, signal: ended.signal });
    previous.stop();
  };

  const ask = (method: string, params: JsonObject, options: CallOptions = { timeoutMs: ASK_TIMEOUT_MS }) => {
    server
      .ask(method, params, options)
      .then(resultOf)
      .catch((error: Error) => log.debug({ err: error, method }, 'not subscribed'));
  };

  return {
    publish,
    add(subscriber) {
      subscribers.add(subscriber);
      refresh();
      return () => {
        if (subscribers.delete(subscriber)) refresh();
      };
    },
    changed: refresh,
    honoured: filter => honoured(filter, server.info?.capabilities ?? {}),
    renew() {
      subscribed = new Set();
      listening = { filter: '', stop: () => {} };
      refresh();
    },
  };
}

const UPDATED = 'notifications/resources/updated';

/** An update may name a part of what was subscribed to (2025-11-25, resources). */
function follows({ resourceSubscriptions = [] }: Filter, uri: string): boolean {
  return resourceSubscriptions.some(
    followed => uri === followed || uri.startsWith(`${followed.replace(/\/$/, '')}/`),
  );
}

function union(filters: Filter[]): Filter {
  const some = (key: 'toolsListChanged' | 'promptsListChanged' | 'resourcesListChanged') =>
    filters.some(filter => filter[key]);
  const uris = [...new Set(filters.flatMap(filter => filter.resourceSubscriptions ?? []))].sort();
  return {
    ...(some('toolsListChanged') ? { toolsListChanged: true } : {}),
    ...(some('promptsListChanged') ? { promptsListChanged: true } : {}),
    ...(some('resourcesListChanged') ? { resourcesListChanged: true } : {}),
    ...(uris.length > 0 ? { resourceSubscriptions: uris } : {}),
  };
}

function honoured(filter: Filter, capabilities: JsonObject): Filter {
  const can = (part: string, what: string) => {
    const capability = capabilities[part];
    return isObject(capability) && capability[what] === true;
  };
  return {
    ...(filter.toolsListChanged && can('tools', 'listChanged') ? { toolsListChanged: true } : {}),
    ...(filter.promptsListChanged && can('prompts', 'listChanged') ? { promptsListChanged: true } : {}),
    ...(filter.resourcesListChanged && can('resources', 'listChanged') ? { resourcesListChanged: true } : {}),
    ...(filter.resourceSubscriptions && can('resources', 'subscribe')
      ? { resourceSubscriptions: filter.resourceSubscriptions }
      : {}),
  };
}

/** The id of our own upstream listen means nothing to a client. */
function withoutSubscriptionId(text: string, params: JsonObject): string {
  if (!isObject(params._meta) || params._meta[META.subscriptionId] === undefined) return text;
  const path = Object.keys(params._meta).length === 1 ? ['params'] : ['params', '_meta'];
  return changeObject(text, path, {
    remove: key => key === META.subscriptionId || (key === '_meta' && path.length === 1),
  });
}
