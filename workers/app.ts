import { randomUUID } from 'node:crypto';
import { type ServerResponse, STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import fastify, {
  type FastifyError,
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify';
import type { Logger } from 'pino';
import { describeError, errorHeaders, MeshError, toMeshError, toProblem } from '../mesh/errors.ts';
import type { HostGuard } from '../mesh/host-guard.ts';
import { IDENTITY_CHALLENGE } from '../mesh/identity.ts';
import { errorText } from '../mesh/jsonrpc.ts';
import { LOAD_HEADER, writeLoadReport } from '../mesh/load-report.ts';
import { acceptCallId, HEADERS, WORKER_ROUTES } from '../mesh/names.ts';
import type { Service } from '../mesh/registry.ts';
import { RpcError } from '../mesh/rpc-error.ts';
import { type MeshTls, refusePeer } from '../mesh/tls.ts';
import { bodyReader } from './body.ts';
import type { Host } from './host.ts';
import { addMcpRoute } from './mcp-route.ts';
import { addProofRoute } from './proof-route.ts';
import { addRestRoutes } from './rest-route.ts';

interface AppParts {
  host: Host;
  log: Logger;
  /** Against DNS rebinding. */
  refuseHost: HostGuard;
  isDraining(): boolean;
  /** undefined: plain HTTP. */
  tls: MeshTls | undefined;
  /** What this worker proves to gateways and to other workers. */
  proof: Omit<Parameters<typeof addProofRoute>[1], 'service'>;
}

/** Kong keeps idle connections for 15 s (kong.conf), and does not retry a POST on one that the worker closed first. */
const KEEP_ALIVE_TIMEOUT_MS = 75_000;
const REQUEST_TIMEOUT_MS = 120_000;
/** In bytes of a URL; MCP allows 128 characters, each of which may take nine when it is percent-encoded. */
const TOOL_NAME_MAX = 2048;

/** Builds the worker's HTTP endpoint; the caller listens. */
export function buildApp(parts: AppParts): FastifyInstance {
  const { host, log, isDraining } = parts;
  const { service, server, metrics } = host;
  const app = fastify({
    ...(parts.tls ? { https: { ...parts.tls, requestCert: true, rejectUnauthorized: false } } : {}),
    loggerInstance: log,
    logController: new LogController({ disableRequestLogging: true }),
    // One for each request would be made for nothing: who logs names the call.
    childLoggerFactory: logger => logger,
    keepAliveTimeout: KEEP_ALIVE_TIMEOUT_MS,
    genReqId: request => acceptCallId(request.headers[HEADERS.callId]) ?? randomUUID(),
    // Longest time for a request to arrive whole: a body sent byte by byte must not hold its connection for ever.
    requestTimeout: REQUEST_TIMEOUT_MS,
    routerOptions: { maxParamLength: TOOL_NAME_MAX },
    frameworkErrors: (fault, request, reply) => {
      sendError(fromFastify(fault), request, reply);
    },
    clientErrorHandler: refuseConnection,
    return503OnClosing: false,
    forceCloseConnections: 'idle',
  }) as unknown as FastifyInstance;

  app.removeAllContentTypeParsers();
  app.addContentTypeParser('application/json', bodyReader(service.limits.request_bytes));
  if (parts.tls) requireCertificate(app, service);
  app.decorateRequest('caller');
  app.decorateRequest('nobody');
  app.addHook('onRequest', (request, reply, done) => {
    reply.header(HEADERS.callId, request.id).header(LOAD_HEADER, writeLoadReport(host.load.report()));
    if (isDraining()) reply.header('connection', 'close');
    lastAnswer.set(request.raw.socket, reply.raw);
    const caller = host.readCaller(request);
    if (caller instanceof MeshError) request.nobody = caller;
    else request.caller = caller;
    // The gateway that vouches for a caller has looked at its Origin.
    const vouched = request.caller?.vouched === true;
    const refusal = parts.refuseHost(request.headers.host, vouched ? undefined : request.headers.origin);
    if (refusal === undefined) done();
    else done(new MeshError('forbidden', { detail: refusal }));
  });

  const methodsOf = followRoutes(app);
  const health = async (_request: FastifyRequest, reply: FastifyReply) => {
    const draining = isDraining();
    const healthy = server.state === 'ready' && !draining;
    const reason = draining ? 'worker is draining' : server.reason;
    return reply
      .code(healthy ? 200 : 503)
      .send({ status: healthy ? 'passing' : 'critical', ...(healthy ? {} : { reason }) });
  };
  for (const path of healthPaths(service)) app.get(path, health);
  app.get('/metrics', async (_request, reply) =>
    reply.type(metrics.contentType).send(await metrics.expose()),
  );
  addProofRoute(app, { service: service.name, ...parts.proof });
  app.register(async scope => {
    scope.addHook('onRequest', ({ nobody }, reply, done) => {
      if (nobody) reply.header('www-authenticate', IDENTITY_CHALLENGE);
      done(nobody);
    });
    addMcpRoute(scope, host);
    addRestRoutes(scope, host);
  });

  app.setNotFoundHandler((request, reply) => {
    const [url = ''] = request.url.split('?', 1);
    const allowed = methodsOf(url);
    if (allowed.length > 0) {
      reply.header('allow', allowed.join(', '));
      throw new MeshError('method_not_allowed', { detail: `use ${allowed.join(' or ')}` });
    }
    throw new MeshError('unknown_path', { detail: `there are ${WORKER_ROUTES.join(', ')}` });
  });
  app.setErrorHandler((fault: FastifyError | RpcError, request, reply) => {
    if (fault instanceof RpcError) {
      return reply.code(fault.status).type('application/json').send(fault.toText('null'));
    }
    return sendError(fromFastify(fault), request, reply);
  });
  return app;
}

/** The methods of a path that has routes: `hasRoute` reads a request's path as the pattern of one, and throws at some. */
function followRoutes(app: FastifyInstance): (path: string) => string[] {
  const routes: { method: string; pattern: RegExp }[] = [];
  app.addHook('onRoute', ({ method, url }) => {
    const pattern = new RegExp(`^${url.split(/:\w+/).map(RegExp.escape).join('[^/]+')}$`);
    routes.push(...[method].flat().map(one => ({ method: one, pattern })));
  });
  return path =>
    routes.filter(({ method, pattern }) => method !== 'HEAD' && pattern.test(path)).map(r => r.method);
}

function healthPaths({ health_check }: Service): Set<string> {
  return new Set(['/health', '/ready', health_check]);
}

/** Health is for Consul, which has no certificate of ours; metrics are for whoever has one. */
function requireCertificate(app: FastifyInstance, service: Service): void {
  const open = healthPaths(service);
  app.addHook('onRequest', (request, _reply, done) => {
    const [path = ''] = request.url.split('?', 1);
    const refusal = open.has(path)
      ? undefined
      : refusePeer(request.raw.socket, service.name, path === '/metrics');
    if (refusal === undefined) done();
    else done(new MeshError('forbidden', { detail: refusal }));
  });
}

/** Faults that fastify finds before a route does. */
function fromFastify(fault: FastifyError): MeshError {
  if (fault.code === 'FST_ERR_CTP_INVALID_MEDIA_TYPE') {
    return new MeshError('unsupported_media_type', { detail: 'Content-Type must be application/json' });
  }
  if (fault.code?.startsWith('FST_ERR_CTP') || (fault.statusCode ?? 500) < 500) {
    return new MeshError('invalid_request', { detail: fault.message, cause: fault });
  }
  return toMeshError(fault);
}

/** To the request that came last on a connection. */
const lastAnswer = new WeakMap<Socket, ServerResponse>();

/** What is no HTTP request that a route could answer. */
function refuseConnection(fault: NodeJS.ErrnoException, socket: Socket): void {
  const last = lastAnswer.get(socket);
  // Its head had its answer already: a second one would be taken for that of the client's next request.
  const isAnswered = last?.headersSent === true && !last.req.complete;
  if (fault.code === 'ECONNRESET' || !socket.writable || isAnswered) {
    socket.destroy();
    return;
  }
  const tooLarge = fault.code === 'HPE_HEADER_OVERFLOW';
  const error = new MeshError(tooLarge ? 'headers_too_large' : 'invalid_request', {
    detail: 'this is no HTTP request',
  });
  const body = JSON.stringify(toProblem(error));
  const head = `HTTP/1.1 ${error.status} ${STATUS_CODES[error.status]}\r\nconnection: close\r\n`;
  const type = `content-type: application/problem+json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n`;
  socket.end(head + type + body);
}

/** JSON-RPC on the MCP endpoint, problem details elsewhere. */
function sendError(error: MeshError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  if (error.status >= 500)
    request.log.error({ call_id: request.id, err: error, cause: error.cause }, describeError(error));
  reply.code(error.status).headers(errorHeaders(error)).header(HEADERS.callId, request.id);
  if (error.code === 'too_large') {
    // Closing while the client still sends would reset the connection and lose the answer: the rest is read away.
    reply.removeHeader('connection');
    request.raw.resume();
  }
  if (request.url.split('?', 1)[0] === '/mcp') {
    return reply.type('application/json').send(errorText('null', error, request.id));
  }
  return reply.type('application/problem+json').send(JSON.stringify(toProblem(error, request.id)));
}
