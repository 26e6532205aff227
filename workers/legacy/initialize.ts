import { LATEST_LEGACY_VERSION, LEGACY_VERSIONS, RPC } from '../../mesh/eras.ts';
import { MeshError } from '../../mesh/errors.ts';
import { isObject, type JsonObject, type RpcRequest, resultText } from '../../mesh/jsonrpc.ts';
import type { ClientProfile, ServerInfo } from '../connection.ts';
import type { Host } from '../host.ts';
import { errorMember } from '../multiplexer.ts';
import type { SessionClaims } from './session-token.ts';

interface Initialized {
  /** The response's text. */
  text: string;
  /** For `Mcp-Session-Id`. */
  token: string;
}

/** Begins a session: from what the shared server said of itself, or with a server of its own. @throws MeshError */
export async function initialize(host: Host, message: RpcRequest, principal: string): Promise<Initialized> {
  const own = host.service.isolation === 'session';
  const client = readClient(message.params);
  const { token, claims } = host.tokens.mint(client, principal);
  const { server } = await host.tenants.of(principal);
  const info = own ? await openOwn(host, claims) : server.info;
  if (!info) throw new MeshError('child_unavailable', { detail: server.reason });
  return { token, text: resultText(message.idText, JSON.stringify(describe(info, client, own))) };
}

/** The session's own server is told who its client is, and speaks to that client alone. */
async function openOwn({ pool, sessions }: Host, claims: SessionClaims): Promise<ServerInfo | undefined> {
  const session = sessions.of(claims);
  const connection = await pool.open(claims.id, {
    prefer: 'legacy',
    client: claims,
    watched: () => session?.listening ?? false,
    handlers: {
      onNotification: notification => void session?.tell(notification.text),
      onRequest: async (asked, withdrawn) =>
        session?.ask(asked, withdrawn, text => session.tell(text)) ??
        errorMember(RPC.internal, 'the session has ended'),
    },
  });
  return connection.info;
}

function readClient({ protocolVersion, capabilities, clientInfo }: JsonObject): ClientProfile {
  const asked = String(protocolVersion);
  return {
    protocolVersion: LEGACY_VERSIONS.includes(asked) ? asked : LATEST_LEGACY_VERSION,
    capabilities: isObject(capabilities) ? capabilities : {},
    clientInfo: isObject(clientInfo) ? clientInfo : {},
  };
}

/** The initialize result for this client: only what can be kept for it. */
function describe({ era, ...info }: ServerInfo, client: ClientProfile, own: boolean): JsonObject {
  const { tasks: _tasks, extensions: _extensions, logging, ...capabilities } = info.capabilities;
  // The logs of a shared legacy server belong to nobody for certain.
  const logs = logging !== undefined && (own || era === 'modern') ? { logging } : {};
  return { ...info, protocolVersion: client.protocolVersion, capabilities: { ...capabilities, ...logs } };
}
