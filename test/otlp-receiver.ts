import { createServer, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { TestContext } from 'node:test';
import { gunzipSync } from 'node:zlib';
import { until } from './until.ts';

/** A span as it came over the wire (OTLP/HTTP, JSON), its attributes as a plain object. */
export interface ReceivedSpan {
  traceId: string;
  spanId: string;
  parentSpanId: string | undefined;
  name: string;
  /** 1 internal, 2 server, 3 client. */
  kind: number;
  startMs: number;
  endMs: number;
  attributes: Record<string, unknown>;
  events: { name: string; attributes: Record<string, unknown> }[];
  links: { traceId: string; spanId: string }[];
  traceState: string | undefined;
  /** 2: error. */
  status: number | undefined;
  resource: Record<string, unknown>;
}

export interface Receiver {
  /** The traces endpoint. */
  url: string;
  spans: ReceivedSpan[];
  /** The bodies as they came. */
  bodies: string[];
  /** Waits until there are so many spans that fit. */
  wait(count: number, fits?: (span: ReceivedSpan) => boolean): Promise<ReceivedSpan[]>;
}

interface Options {
  /** Answers with this status until it says 200. */
  status?: () => number;
}

/** What a collector is to an exporter: takes OTLP over HTTP at /v1/traces and keeps what came. */
export async function startReceiver(t: TestContext, { status = () => 200 }: Options = {}): Promise<Receiver> {
  const spans: ReceivedSpan[] = [];
  const bodies: string[] = [];
  const server = createServer((request, response) => {
    const take = (body: string) => {
      const code = request.url === '/v1/traces' ? status() : 404;
      if (code === 200) {
        bodies.push(body);
        spans.push(...readSpans(JSON.parse(body)));
      }
      response.writeHead(code, { 'content-type': 'application/json' }).end('{}');
    };
    // An exporter gives up in the middle of a body when its time is over.
    bodyOf(request).then(take, () => {});
  });
  await new Promise<void>(resolve => server.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    server.close();
    server.closeAllConnections();
  });
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/traces`,
    spans,
    bodies,
    async wait(count, fits = () => true) {
      const found = () => spans.filter(fits);
      const names = () => spans.map(({ name }) => name).join(', ');
      return until(`${count} spans`, () => found().length >= count && found(), names);
    },
  };
}

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  const body = Buffer.concat(chunks);
  return (request.headers['content-encoding'] === 'gzip' ? gunzipSync(body) : body).toString();
}

// biome-ignore lint/suspicious/noExplicitAny: JSON of a third party, looked at by the test that fails if it is not so
function readSpans({ resourceSpans }: any): ReceivedSpan[] {
  // biome-ignore lint/suspicious/noExplicitAny: as above
  return resourceSpans.flatMap(({ resource, scopeSpans }: any) =>
    // biome-ignore lint/suspicious/noExplicitAny: as above
    scopeSpans.flatMap((scope: any) =>
      // biome-ignore lint/suspicious/noExplicitAny: as above
      scope.spans.map((span: any) => ({
        ...span,
        parentSpanId: span.parentSpanId || undefined,
        startMs: Number(span.startTimeUnixNano) / 1e6,
        endMs: Number(span.endTimeUnixNano) / 1e6,
        attributes: readAttributes(span.attributes),
        // biome-ignore lint/suspicious/noExplicitAny: as above
        events: (span.events ?? []).map((event: any) => ({
          name: event.name,
          attributes: readAttributes(event.attributes),
        })),
        links: span.links ?? [],
        status: span.status?.code,
        resource: readAttributes(resource.attributes),
      })),
    ),
  );
}

function readAttributes(
  list: { key: string; value: Record<string, unknown> }[] = [],
): Record<string, unknown> {
  return Object.fromEntries(
    list.map(({ key, value }) => {
      const array = value.arrayValue as { values?: Record<string, unknown>[] } | undefined;
      const [only] = Object.values(value);
      if (array) return [key, (array.values ?? []).map(item => Object.values(item)[0])];
      return [key, 'intValue' in value ? Number(only) : only];
    }),
  );
}
