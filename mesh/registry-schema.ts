import { z } from 'zod';
import { PROOF_PATH } from './instance-proof.ts';
import { SERVICE_NAME_PATTERN, WORKER_ROUTES } from './names.ts';

/** Schema of the registry file: every field with its meaning, its default and its bounds. */

export const LOAD_BALANCERS = [
  'ROUND_ROBIN',
  'LEAST_CONNECTIONS',
  'WEIGHTED',
  'RANDOM',
  'IP_HASH',
  'ADAPTIVE',
] as const;

/** A name that is also a DNS label, as Consul's DNS interface wants it (RFC 1123). */
const CONSUL_SERVICE_PATTERN = /^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/;
/** No pattern of a route, and nothing that would have to be escaped. */
const PLAIN_PATH = /^\/[\w.~/-]*$/;
const TAKEN_PATHS: ReadonlySet<string> = new Set([...WORKER_ROUTES, '/metrics', PROOF_PATH]);
const port = z.int().min(1).max(65535);
const positive = z.int().min(1);
const milliseconds = z.int().min(1).max(2_147_483_647);

const scaling = z.strictObject({
  min: z.int().min(0).describe('Fewest instances; 0 starts on the first call.'),
  max: positive.describe('Most instances.'),
  target_in_flight: positive.default(4).describe('Calls in flight per instance to scale for.'),
});

const breaker = z.strictObject({
  failure_threshold: positive.default(5).describe('Consecutive failures that open the breaker.'),
  recovery_timeout: z.number().positive().default(30).describe('Seconds until one probe is let through.'),
});

const retry = z.strictObject({
  attempts: positive.max(10).default(3).describe('Tries in all, only where a repeat is safe; 1 = no repeat.'),
  base_ms: milliseconds.default(100).describe('First wait, up to; doubles with each try.'),
  max_ms: milliseconds.default(2000).describe('Longest wait, unless the server needs longer to start.'),
});

const limits = z.strictObject({
  memory_mb: positive
    .default(1024)
    .describe('Memory of the server and its children; beyond it they are ended and started again.'),
  open_files: positive.default(1024).describe('Open files of each process.'),
  processes: positive
    .default(64)
    .describe('Processes of the server; beyond it they are ended and started again.'),
  request_bytes: positive.default(8_388_608).describe('Largest request body; beyond it 413.'),
  line_bytes: positive.default(16_777_216).describe('Longest line from the server; a longer one is dropped.'),
  batch: positive.default(20).describe('Messages in a 2025-03-26 batch.'),
});

const recycle = z.strictObject({
  max_calls: z.int().min(0).default(0).describe('Calls after which the server is replaced; 0 = never.'),
  max_age_s: z.int().min(0).default(0).describe('Age in seconds, up to a tenth less; 0 = never.'),
  max_rss_mb: z
    .int()
    .min(0)
    .default(0)
    .describe('Memory in MB, looked at from its second minute on; 0 = never.'),
});

const pool = z.strictObject({
  max: positive.default(64).describe('Most servers of one worker at once.'),
  spares: z.int().min(0).default(1).describe('Servers started ahead, for the next client.'),
  idle_s: positive.default(900).describe('Seconds after which an unused server is ended.'),
});

/** Fields that `defaults` may set, too. */
const tunable = {
  env_allow: z.array(z.string()).default(['HOME', 'PATH']).describe('Inherited variables; nothing else is.'),
  instances: z
    .union([z.int().min(0), scaling], 'must be a whole number or { min, max, target_in_flight }')
    .default(1)
    .describe('How many workers, or a range.'),
  health_check: z
    .string()
    .regex(PLAIN_PATH, 'must be a path of letters, digits and "/", "-", ".", "_", "~"')
    .refine(path => !TAKEN_PATHS.has(path), 'is a path that workers answer otherwise; choose another')
    .default('/health')
    .describe("Path of Consul's HTTP check."),
  tags: z.array(z.string()).default([]).describe('Consul tags beside "mcp".'),
  capabilities: z.array(z.string()).default([]).describe('What X-MCP-Capability may ask for.'),
  load_balancer: z.enum(LOAD_BALANCERS).default('ADAPTIVE').describe('How gateways choose an instance.'),
  weight: positive.max(65535).default(100).describe('Consul weight of an instance.'),
  circuit_breaker: breaker.prefault({}).describe('Breaker round the server.'),
  isolation: z.enum(['shared', 'session', 'principal']).default('shared').describe('Who shares one server.'),
  pool: pool.prefault({}).describe('Servers of a worker where isolation is not "shared".'),
  concurrency: positive.default(256).describe('Calls inside the server at once.'),
  queue: z.int().min(0).default(1024).describe('Calls waiting beyond that; then 503 queue_full.'),
  timeout_ms: milliseconds.default(60_000).describe('Longest time for one call.'),
  retry: retry.prefault({}).describe('Repeats of safe calls.'),
  limits: limits.prefault({}).describe('Bounds of one worker.'),
  recycle: recycle.prefault({}).describe('When a shared server is replaced, without failing a call.'),
  validate_arguments: z
    .boolean()
    .default(false)
    .describe("Check the arguments of calls against the tool's inputSchema, before the server gets them."),
  traffic_percent: z
    .number()
    .min(0)
    .max(100)
    .default(100)
    .describe(
      'How many of 100 new sessions go to the mesh, while there is an old way (legacy_url, mesh connect).',
    ),
};

export const serviceSchema = z.strictObject({
  name: z
    .string()
    .regex(
      SERVICE_NAME_PATTERN,
      'must be lower-case letters, digits, "-" and "_", 63 at most, not starting with a sign',
    )
    .describe('Name in /api/v1/mcp/<name>.'),
  service_name: z
    .string()
    .regex(CONSUL_SERVICE_PATTERN, 'must be a DNS label: lower-case letters, digits and "-", 63 at most')
    .optional()
    .describe('Name in Consul; default mcp-<name>.'),
  command: z.string().min(1).describe('Program to start; no shell is involved.'),
  args: z.array(z.coerce.string()).default([]).describe('Its arguments.'),
  env: z.record(z.string(), z.coerce.string()).default({}).describe('Variables of the server.'),
  cwd: z.string().optional().describe("Working folder; default: the worker's."),
  port_range: z
    .tuple([port, port])
    .optional()
    .describe('First and last port of the workers; default: any free port.'),
  tool_timeouts: z.record(z.string(), milliseconds).default({}).describe('Longest time by tool, in ms.'),
  costs: z.record(z.string(), positive).default({}).describe('Weight of a call in quotas, by tool.'),
  legacy_url: z
    .url({ protocol: /^https?$/, error: 'must be an http(s) URL' })
    .nullable()
    .default(null)
    .describe(
      'MCP endpoint of the old deployment, http only: it gets the sessions that do not go to the mesh.',
    ),
  ...tunable,
});

/** Only to check `defaults`: what they do not say must stay unsaid, so the values merged are the file's own. */
export const defaultsSchema = z.strictObject(tunable).partial();

export const registrySchema = z.strictObject({
  version: z.literal(1).default(1).describe('Version of this format.'),
  defaults: defaultsSchema.optional().describe('Values for services that do not say otherwise.'),
  mcp_services: z.array(z.unknown()).describe('The MCP servers.'),
});
