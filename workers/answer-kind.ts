import { isObject, type RpcResponse } from '../mesh/jsonrpc.ts';

/** What a server made of a request: a result, a tool's own error (`isError`), or a JSON-RPC error. */
export type AnswerKind = 'ok' | 'tool_error' | 'server_error';

export function kindOf({ value: { error, result } }: Pick<RpcResponse, 'value'>): AnswerKind {
  if (error !== undefined) return 'server_error';
  return isObject(result) && result.isError === true ? 'tool_error' : 'ok';
}
