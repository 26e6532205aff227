import { createServer } from 'node:http';
import { Counter, collectDefaultMetrics, Histogram, Registry } from 'prom-client';
import { METRIC_PREFIX } from '../mesh/names.ts';
import type { Outcome } from './log.ts';

export interface GatewayMetrics {
  observe(outcome: Outcome): void;
  close(): void;
}

const SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];

/** The gateway's counters; exposed at `/metrics` on a loopback port when one is given. */
export function createGatewayMetrics(port: number | undefined): GatewayMetrics {
  const register = new Registry();
  const registers = [register];
  const duration = new Histogram({
    name: `${METRIC_PREFIX}gateway_request_duration_seconds`,
    help: 'Time of a routed request at the gateway, by service and HTTP status',
    labelNames: ['service', 'status'],
    buckets: SECONDS,
    registers,
  });
  const retries = new Counter({
    name: `${METRIC_PREFIX}gateway_retries_total`,
    help: 'Connections to an instance that failed and were followed by another instance',
    labelNames: ['service'],
    registers,
  });
  const server = port === undefined ? undefined : listen(register, port);
  return {
    observe({ service, status, tries, latencyMs }) {
      duration.observe({ service, status }, latencyMs / 1000);
      if (tries.length > 1) retries.inc({ service }, tries.length - 1);
    },
    close: () => server?.close(),
  };
}

function listen(register: Registry, port: number) {
  collectDefaultMetrics({ register, prefix: METRIC_PREFIX });
  const server = createServer((request, response) => {
    if (request.url !== '/metrics') {
      response.writeHead(404).end();
      return;
    }
    register.metrics().then(
      text => response.writeHead(200, { 'content-type': register.contentType }).end(text),
      () => response.writeHead(500).end(),
    );
  });
  server.on('error', error => process.stderr.write(`mcp-mesh: /metrics on port ${port}: ${error.message}\n`));
  server.listen(port, '127.0.0.1').unref();
  return server;
}
