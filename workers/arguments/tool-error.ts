import type { Era } from '../../mesh/eras.ts';
import { type MeshError, toRpcError } from '../../mesh/errors.ts';
import { type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';

/** `_meta` key of a result that the mesh itself answered. */
const ERROR_META = 'mcp-mesh/error';

/**
 * Arguments that do not fit as a server would say it: a result with `isError`, which models get to read and mend their
 * call by, and not a protocol error (2025-11-25 and 2026-07-28, tools, error handling; SEP-1303).
 */
export function toToolError(request: RpcRequest, error: MeshError, era: Era | undefined): string {
  const { message, data } = toRpcError(error);
  const lines = (error.errors ?? []).map(({ pointer, detail }) => `${pointer || 'the arguments'}: ${detail}`);
  const result = {
    content: [{ type: 'text', text: [message, ...lines].join('\n') }],
    isError: true,
    ...(era === 'modern' ? { resultType: 'complete' } : {}),
    _meta: { [ERROR_META]: data },
  };
  return resultText(request.idText, JSON.stringify(result));
}
