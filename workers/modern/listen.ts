import { META } from '../../mesh/eras.ts';
import { MeshError } from '../../mesh/errors.ts';
import { changeObject } from '../../mesh/json-text.ts';
import { isObject, notificationText, type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import type { Host } from '../host.ts';
import type { McpReply } from '../reply.ts';
import type { Filter, Subscriptions } from '../subscriptions.ts';

/**
 * `subscriptions/listen` (2026-07-28): a stream of the changes that the client asked for, until it closes it.
 * @throws MeshError `not_acceptable` when it reads no streams
 */
export function listen(
  { listens }: Host,
  subscriptions: Subscriptions,
  message: RpcRequest,
  out: McpReply,
  closed: AbortSignal,
): void {
  const filter = subscriptions.honoured(readFilter(message.params.notifications));
  const set = { [META.subscriptionId]: message.idText };
  const send = (text: string) => out.send(changeObject(text, ['params', '_meta'], { set }));
  const acknowledged = notificationText('notifications/subscriptions/acknowledged', {
    notifications: filter,
  });
  if (!send(acknowledged))
    throw new MeshError('not_acceptable', { detail: 'Accept must list text/event-stream' });
  const remove = subscriptions.add({ filter: () => filter, tell: send });
  const end = () => {
    remove();
    listens.delete(end);
    out.finish(endOfListen(message.idText));
  };
  listens.add(end);
  closed.addEventListener('abort', end, { once: true });
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
