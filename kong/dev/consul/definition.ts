import { z } from 'zod';
import { toMs } from './duration.ts';
import { Refusal } from './reply.ts';

const duration = z.string().refine(text => Number.isFinite(toMs(text)), 'time: invalid duration');
const strings = z.record(z.string(), z.string());

const checkSchema = z.strictObject({
  CheckID: z.string().default(''),
  Name: z.string().default(''),
  Notes: z.string().default(''),
  Status: z.string().default(''),
  TTL: duration.default(''),
  HTTP: z.string().default(''),
  Method: z.string().default('GET'),
  Header: z.record(z.string(), z.array(z.string())).default({}),
  DisableRedirects: z.boolean().default(false),
  TCP: z.string().default(''),
  Interval: duration.default(''),
  Timeout: duration.default(''),
  DeregisterCriticalServiceAfter: duration.default(''),
});

const registrationSchema = z.strictObject({
  ID: z.string().default(''),
  Name: z.string().default(''),
  Tags: z.array(z.string()).nullish(),
  Address: z.string().default(''),
  Port: z.int().default(0),
  Meta: strings.nullish(),
  Weights: z.strictObject({ Passing: z.int(), Warning: z.int() }).default({ Passing: 1, Warning: 1 }),
  EnableTagOverride: z.boolean().default(false),
  Check: checkSchema.optional(),
  Checks: z.array(checkSchema).default([]),
});

export type CheckDefinition = z.infer<typeof checkSchema>;
export type ServiceDefinition = z.infer<typeof registrationSchema>;

/**
 * Reads the body of PUT /v1/agent/service/register. Throws Refusal: 400 with Consul's text for a bad value, and for
 * DisableRedirects unless this is to be a Consul that knows it; 501 for a field that the stand-in does not do (the real
 * one may).
 */
export function readRegistration(body: Buffer, { knowsRedirects = false } = {}): ServiceDefinition {
  const parsed = registrationSchema.safeParse(parseJson(body));
  if (!parsed.success) {
    const [issue] = parsed.error.issues;
    const place = issue?.path.join('.') ?? '';
    if (issue?.code === 'unrecognized_keys') {
      const fields = issue.keys.map(key => (place === '' ? key : `${place}.${key}`)).join(', ');
      throw new Refusal(501, `this stand-in for Consul knows no field ${fields} of a service's registration`);
    }
    throw new Refusal(400, `Request decode failed: ${issue?.message} (${place})`);
  }
  const service = parsed.data;
  if (!knowsRedirects && service.Checks.some(check => check.DisableRedirects)) {
    throw new Refusal(400, 'Request decode failed: json: unknown field "DisableRedirects"');
  }
  const fault = findFault(service) ?? findMetaFault(service.Meta ?? {});
  if (fault !== undefined) throw new Refusal(400, fault);
  return service;
}

export function parseJson(body: Buffer): unknown {
  try {
    return JSON.parse(body.toString());
  } catch (error) {
    throw new Refusal(400, `Request decode failed: ${(error as Error).message}`);
  }
}

/** Check.Validate and the order of AgentRegisterService (agent/agent_endpoint.go). */
function findFault({ Name, Address, Weights, Check, Checks }: ServiceDefinition): string | undefined {
  if (Name === '') return 'Missing service name';
  if (/^(0\.0\.0\.0|::|\[::\])$/.test(Address)) return 'Invalid service address';
  if (Weights.Passing < 1) return 'Invalid Weights: Passing must be greater than 0';
  if (Weights.Warning < 0) return 'Invalid Weights: Warning must be greater or equal than 0';
  if (Weights.Passing > 65535 || Weights.Warning > 65535)
    return 'Invalid Weights: must not be greater than 65535';
  for (const check of [...Checks, ...(Check === undefined ? [] : [Check])]) {
    const runs = check.HTTP !== '' || check.TCP !== '';
    if (runs && toMs(check.Interval) === 0) {
      return 'Invalid check: Interval must be > 0 for Script, HTTP, or TCP checks';
    }
    if (!runs && toMs(check.TTL) === 0) return 'Invalid check: TTL must be > 0 for TTL checks';
    if (!['', 'passing', 'warning', 'critical'].includes(check.Status)) {
      return "Status for checks must 'passing', 'warning', 'critical'";
    }
  }
  return undefined;
}

/** structs.ValidateServiceMetadata: workers put names of tools and versions here, which may be long. */
function findMetaFault(meta: Record<string, string>): string | undefined {
  const fault = (key: string, why: string) =>
    `Invalid Service Meta: Couldn't load metadata pair ('${key}', '${meta[key]}'): ${why}`;
  const pairs = Object.entries(meta);
  if (pairs.length > 64)
    return 'Invalid Service Meta: Node metadata cannot contain more than 64 key/value pairs';
  for (const [key, value] of pairs) {
    if (key === '') return fault(key, 'Key cannot be blank');
    if (!/^[A-Za-z0-9_-]+$/.test(key)) return fault(key, 'Key contains invalid characters');
    if (key.length > 128) return fault(key, 'Key is too long (limit: 128 characters)');
    if (Buffer.byteLength(value) > 512) return fault(key, 'Value is too long (limit: 512 characters)');
  }
  return undefined;
}
