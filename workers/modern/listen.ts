import { META } from '../../mesh/eras.ts';
import { MeshError } from '../../mesh/errors.ts';
import { changeObject } from '../../mesh/json-text.ts';
import { isObject, notificationText, type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import type { Caller } from '../caller.ts';
import type { CancelSignal } from '../canceller.ts';
import { isGranted } from '../guard.ts';
import type { Host } from '../host.ts';
import type { McpReply } from '../reply.ts';
import type { Filter, Subscriptions } from '../subscriptions.ts';

interface Listener {
  caller: Caller;
  out: McpReply;
  closed: CancelSignal;
}

/**
 * `subscriptions/listen` (2026-07-28): a stream of the changes that the client asked for, until it closes it.
 * @throws MeshError `not_acceptable` when it reads no streams
 */
export function listen(
  { listens }: Host,
  subscriptions: Subscriptions,
  message: RpcRequest,
  { caller, out, closed }: Listener,
): void {
  const mayRead = (uri: string) => isGranted(caller.grants, 'resources', uri);
  const filter = subscriptions.honoured(granted(readFilter(message.params.notifications), mayRead));
  const set = { [META.subscriptionId]: message.idText };
  const send = (text: string) => out.send(changeObject(text, ['params', '_meta'], { set }));
  const acknowledged = notificationText('notifications/subscriptions/acknowledged', {
    notifications: filter,
  });
  if (!send(acknowledged))
    throw new MeshError('not_acceptable', { detail: 'Accept must list text/event-stream' });
  const remove = subscriptions.add({ filter: () => filter, mayRead, tell: send });
  const end = () => {
    remove();
    listens.delete(end);
    out.finish(endOfListen(message.idText));
  };
  listens.add(end);
  closed.addEventListener('abort', end, { once: true });
}

/** What the caller may not read is not listened to, like what the server cannot tell. */
function granted(
  { resourceSubscriptions: uris, ...filter }: Filter,
  mayRead: (uri: string) => boolean,
): Filter {
  return uris ? { ...filter, resourceSubscriptions: uris.filter(mayRead) } : filter;
}

/** From our side a listen ends with a result, which says that no more will come. */
function endOfListen(idText: string): string {
  return resultText(idText, `{"resultType":"complete","_meta":{"${META.subscriptionId}":${idText}}}`);
}

function readFilter(value: unknown): Filter {
  if (!isObject(value)) return {};
  const { resourceSubscriptions: uris } = value;
  return {
    ...(value.toolsListChanged === true ? { toolsListChanged: true } : {}),
    ...(value.promptsListChanged === true ? { promptsListChanged: true } : {}),
    ...(value.resourcesListChanged === true ? { resourcesListChanged: true } : {}),
    ...(Array.isArray(uris) ? { resourceSubscriptions: uris.map(String) } : {}),
  };
}
