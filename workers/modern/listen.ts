import { META } from '../../mesh/eras.ts';
import { changeObject } from '../../mesh/json-text.ts';
import { isObject, notificationText, type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import type { Host } from '../host.ts';
import type { McpReply } from '../reply.ts';
import type { Filter } from '../subscriptions.ts';

/** `subscriptions/listen` (2026-07-28): a stream of the changes that the client asked for, until it closes it. */
export function listen(
  { subscriptions }: Host,
  message: RpcRequest,
  out: McpReply,
  closed: AbortSignal,
): void {
  const filter = subscriptions.honoured(readFilter(message.params.notifications));
  const set = { [META.subscriptionId]: message.idText };
  const send = (text: string) => out.send(changeObject(text, ['params', '_meta'], { set }));
  send(notificationText('notifications/subscriptions/acknowledged', { notifications: filter }));
  const remove = subscriptions.add({ filter: () => filter, tell: send });
  closed.addEventListener('abort', remove, { once: true });
}

/** Ends a listen from our side, as a stopping worker does: a result says that no more will come. */
export function endOfListen(idText: string): string {
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
