import { createServer, type Server } from 'node:http';
import { collectDefaultMetrics, type Registry } from 'prom-client';
import { METRIC_PREFIX } from '../../mesh/names.ts';
import { answerDecision, type Decisions } from '../decisions.ts';

export interface MetricsPlace {
  host: string;
  port: number;
}

/** A plugin server that Kong has started anew may come before the old one has let go of the port. */
const RETRY_MS = 2000;
/** Also as a socket for both families has it. */
const LOOPBACK_ADDRESS = /^(::ffff:)?127\.|^::1$/;

/**
 * Serves `/metrics`, with those of the process itself; a port that is taken is tried again and again. Decisions are
 * told on this machine only. Returns what ends it. Does not keep the process alive.
 */
export function serveMetrics(
  register: Registry,
  text: () => Promise<string>,
  { host, port }: MetricsPlace,
  findDecision?: Decisions['find'],
): () => void {
  collectDefaultMetrics({ register, prefix: METRIC_PREFIX });
  const server = createMetricsServer(text, register.contentType, findDecision);
  let retry: NodeJS.Timeout | undefined;
  let complained = false;
  const listen = () => server.listen(port, host).unref();
  server.on('error', error => {
    if (!complained) {
      const cure = 'it is tried again; MESH_GATEWAY_METRICS_PORT chooses another';
      process.stderr.write(`mcp-mesh: /metrics on port ${port}: ${error.message}; ${cure}\n`);
    }
    complained = true;
    retry = setTimeout(listen, RETRY_MS).unref();
  });
  listen();
  return () => {
    clearTimeout(retry);
    server.close();
    server.closeAllConnections();
  };
}

function createMetricsServer(
  expose: () => Promise<string>,
  type: string,
  findDecision?: Decisions['find'],
): Server {
  return createServer((request, response) => {
    const { remoteAddress = '' } = request.socket;
    const isLocal = LOOPBACK_ADDRESS.test(remoteAddress);
    if (findDecision && isLocal && answerDecision(findDecision, request, response)) return;
    if (request.url?.split('?', 1)[0] !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    expose().then(
      text => response.writeHead(200, { 'content-type': type }).end(text),
      error => {
        process.stderr.write(`mcp-mesh: /metrics: ${(error as Error).message}\n`);
        response.writeHead(500).end();
      },
    );
  });
}
