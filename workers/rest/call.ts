import { type Era, RPC } from '../../mesh/eras.ts';
import { MeshError } from '../../mesh/errors.ts';
import { type RpcNotification, type RpcRequest, textAt } from '../../mesh/jsonrpc.ts';
import type { Caller } from '../caller.ts';
import type { CancelSignal } from '../canceller.ts';
import { NO_CLIENT } from '../connection.ts';
import type { Host } from '../host.ts';
import type { Upstream } from '../relay.ts';
import { readInputRequired, toLegacyResponse, toModernRequest } from '../translate.ts';

export interface RestCallOptions {
  caller: Caller;
  timeoutMs?: number;
  /** The client has gone. */
  signal?: CancelSignal;
  /** Gets progress and logs, where the client follows the call. */
  onNotification?: (notification: RpcNotification) => void;
}

interface RestServer extends Upstream {
  /** Whether another call gets logs already, which could not be told from ours. */
  readonly logging: boolean;
}

/** Of logs, to who asked for none in particular. */
const LOG_LEVEL = 'info';

/** Carries one request to the caller's server, and resolves with the JSON text of its result. @throws MeshError */
export async function callForRest(
  host: Host,
  message: RpcRequest,
  options: RestCallOptions,
): Promise<string> {
  const gated = { ...options, throwsInvalid: true };
  const text = await withServer(host, options.caller, async (server, era) => {
    if (era === 'legacy') return (await host.gate.call(server, message, gated)).toString();
    const wantsLogs = options.onNotification !== undefined && !server.logging;
    const request = toModernRequest(message, NO_CLIENT, wantsLogs ? LOG_LEVEL : undefined);
    const answer = await host.gate.call(server, request, { ...gated, wantsLogs });
    return toLegacyResponse(message.method, answer.toString());
  });
  return resultOf(text);
}

/** The caller's shared server, or one for this call alone where each client has its own. */
async function withServer(
  host: Host,
  { principal }: Caller,
  call: (server: RestServer, era: Era) => Promise<string>,
): Promise<string> {
  const { server } = await host.tenants.of(principal);
  const era = server.info?.era ?? 'legacy';
  if (host.service.isolation !== 'session') return call(server, era);
  const lease = await host.pool.lease({ prefer: era, handlers: { onNotification: () => {} } });
  try {
    return await call(lease.connection, lease.connection.info?.era ?? era);
  } finally {
    lease.release();
  }
}

function resultOf(responseText: string): string {
  if (readInputRequired(responseText)) {
    throw new MeshError('server_error', {
      detail: 'the server asks for input, which REST cannot give',
      delivered: 'yes',
    });
  }
  const { error } = JSON.parse(responseText) as { error?: { code: number; message: string } };
  if (!error) return textAt(responseText, ['result']) ?? 'null';
  const delivered = 'yes';
  const detail = error.message;
  if (error.code === RPC.invalidParams) throw new MeshError('invalid_arguments', { detail, delivered });
  if (error.code === RPC.methodNotFound) throw new MeshError('invalid_request', { detail, delivered });
  throw new MeshError('server_error', { detail, delivered });
}
