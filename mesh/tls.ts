import { type ConnectionOptions, checkServerIdentity, type PeerCertificate, TLSSocket } from 'node:tls';

/** Certificates of the mesh's own CA, by which gateways and workers know each other; all in PEM. */
export interface MeshTls {
  cert: string;
  key: string;
  /** Of both sides: what it did not sign is nobody of this mesh. */
  ca: string;
}

/** Name in the certificate of gateways: of Kong, and of its plugin server. */
export const GATEWAY_TLS_NAME = 'gateway.mcp-mesh';

/** Name in the certificate of a service's workers: their addresses change, and one service is not another. */
export function workerTlsName(service: string): string {
  return `${service.replaceAll('_', '-')}.worker.mcp-mesh`;
}

/** For a connection to a worker of a service, whatever its address. */
export function toWorker(tls: MeshTls, service: string): ConnectionOptions {
  return { ...tls, servername: workerTlsName(service), minVersion: 'TLSv1.2' };
}

/**
 * Says why the other end of a connection may not ask a worker of this service: it is neither a gateway nor a worker of
 * the same service. undefined: it may. `anybody`: every certificate of the CA will do.
 */
export function refusePeer(socket: object, service: string, anybody = false): string | undefined {
  if (!(socket instanceof TLSSocket)) return 'the connection is not encrypted';
  if (!socket.authorized)
    return `a client certificate of this mesh is needed (${socket.authorizationError ?? 'none'})`;
  const certificate: PeerCertificate = socket.getPeerCertificate();
  const names = [GATEWAY_TLS_NAME, workerTlsName(service)];
  if (anybody || names.some(name => checkServerIdentity(name, certificate) === undefined)) return undefined;
  return `the client certificate is of none of ${names.join(', ')}`;
}
