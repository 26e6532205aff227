import { SERVER_REQUESTS } from '../../mesh/eras.ts';
import type { RpcRequest } from '../../mesh/jsonrpc.ts';
import type { ToolNotes } from './tool-notes.ts';

/** MCP gives effects to tools alone; these set what they set already, or begin what is thrown away unused. */
const HARMLESS = new Set([
  ...SERVER_REQUESTS.filter(method => method !== 'tools/call'),
  'server/discover',
  'initialize',
  'ping',
  'logging/setLevel',
  'resources/subscribe',
  'resources/unsubscribe',
  'subscriptions/listen',
]);

/** Whether a request may be executed twice: by its method, or by what its tool says of itself. */
export function isRepeatable({ method, params }: RpcRequest, tools: ToolNotes): boolean {
  return HARMLESS.has(method) || (method === 'tools/call' && tools.of(params.name).isRepeatable);
}
