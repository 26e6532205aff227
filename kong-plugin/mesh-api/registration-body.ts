import { z } from 'zod';
import { MeshError } from '../../mesh/errors.ts';
import { isObject } from '../../mesh/jsonrpc.ts';
import { SERVICE_NAME_PATTERN } from '../../mesh/names.ts';
import { describeFault, toFaults } from '../../mesh/yaml-faults.ts';

/** Body of POST /api/v1/mesh/v2/register. */
export interface RegistrationBody {
  service_id: string;
  /** Name in Consul. */
  service_name: string;
  /** IP address or host name. */
  address: string;
  port: number;
  tags: string[];
  metadata: Record<string, string>;
}

/** Of instances; also those that workers make of host names. */
export const INSTANCE_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._:-]{0,191}$/;

/** Meta that the mesh itself decides: set by this API, or what only a worker can know of itself. */
const RESERVED_META: readonly string[] = [
  'instance',
  'registered_by',
  'registered_at',
  'role',
  'sharing',
  'strategy',
  'failure_threshold',
  'recovery_timeout',
  'started_at',
  'tools_hash',
];

const CONSUL_NAME_PATTERN = /^[a-z0-9][a-z0-9-]{0,66}$/;
/** No `=` and no `/`: to other readers of Consul such a tag is a route (Traefik, Fabio). */
const TAG_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/;
/** Consul's own limits, less what this API sets itself (structs.ValidateServiceMetadata). */
const META_KEY_PATTERN = /^[A-Za-z0-9_-]{1,128}$/;
const META_VALUE_BYTES = 512;
const META_MAX = 56;
const TAGS_MAX = 32;
/** Of any object: before they are looked at one by one. */
const KEYS_MAX = 100;
const DETAIL_MAX = 500;
const SHOWN_MAX = 64;
const FAULTS_MAX = 3;

const schema = z.strictObject({
  service_id: z
    .string()
    .regex(INSTANCE_ID_PATTERN, 'must be letters, digits, ".", "_", ":" and "-", 192 at most')
    .describe('Id of the instance, by which the worker itself goes.'),
  service_name: z
    .string()
    .regex(
      CONSUL_NAME_PATTERN,
      'must be the name in Consul, such as mcp-github: lower-case letters, digits, "-"',
    )
    .describe('Name of the service in Consul.'),
  address: z.string().min(1, 'is empty; write an IP address').describe('IP address or host name.'),
  port: z
    .int('must be a whole number from 1 to 65535')
    .min(1, 'must be 1 or more')
    .max(65_535, 'must be 65535 or less')
    .describe('Port of the worker.'),
  tags: z
    .array(z.string().regex(TAG_PATTERN, 'must be letters, digits, ".", "_" and "-", 64 at most'))
    .max(TAGS_MAX, `must be ${TAGS_MAX} at most`)
    .nullish()
    .describe('Consul tags beside "mcp".'),
  metadata: z
    .record(z.string(), z.string('must be a string, as all meta in Consul'))
    .superRefine(checkMeta)
    .nullish()
    .describe('Meta of the instance; mcp_server names the service as callers do.'),
});

/** @throws MeshError `too_large`, `parse_error`, `invalid_request` that names the field and the cure */
export function parseRegistration(text: string | undefined): RegistrationBody {
  if (text === undefined) throw new MeshError('too_large', { detail: 'the body is larger than 64 KB' });
  const value = parse(text);
  if (!isObject(value)) {
    throw invalid(`the body must be a JSON object with ${Object.keys(schema.shape).join(', ')}`);
  }
  refuseOddKeys(value, '');
  if (isObject(value.metadata)) refuseOddKeys(value.metadata, 'metadata.');
  const parsed = schema.safeParse(value, { reportInput: true });
  if (!parsed.success) {
    const faults = parsed.error.issues.slice(0, FAULTS_MAX).flatMap(issue => toFaults(issue, [], schema));
    throw invalid(faults.map(describeFault).join('; '));
  }
  const { tags, metadata, ...rest } = parsed.data;
  return { ...rest, tags: tags ?? [], metadata: metadata ?? {} };
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw new MeshError('parse_error', {
      detail: `the body is no JSON: ${shorten((cause as Error).message)}`,
      cause,
    });
  }
}

/** What the schema would skip in silence, or compare letter for letter with each key it knows. */
function refuseOddKeys(object: Record<string, unknown>, prefix: string): void {
  const keys = Object.keys(object);
  if (keys.length > KEYS_MAX) throw invalid(`${prefix || 'the body'} has more than ${KEYS_MAX} members`);
  for (const key of keys) {
    if (key === '__proto__' || key.length > 128) throw invalid(`${prefix}${shorten(key)}: unknown key`);
  }
}

function checkMeta(metadata: Record<string, string>, context: z.RefinementCtx): void {
  const refuse = (path: string[], message: string) => context.addIssue({ code: 'custom', path, message });
  const entries = Object.entries(metadata);
  if (entries.length > META_MAX) refuse([], `has more than ${META_MAX} entries`);
  for (const [key, value] of entries) {
    if (RESERVED_META.includes(key)) refuse([key], 'is for the mesh to say; leave it out');
    else if (!META_KEY_PATTERN.test(key))
      refuse([key], 'is no key: letters, digits, "_" and "-", 128 at most');
    else if (Buffer.byteLength(value) > META_VALUE_BYTES)
      refuse([key], `is longer than ${META_VALUE_BYTES} bytes`);
    else if (/\p{Cc}/u.test(value)) refuse([key], 'holds a control character');
    else if (key === 'mcp_server' && !SERVICE_NAME_PATTERN.test(value)) {
      refuse([key], 'is no service name: lower-case letters, digits, "-" and "_", such as github');
    }
  }
}

function shorten(text: string): string {
  return text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}…` : text;
}

function invalid(detail: string): MeshError {
  const text = detail.length > DETAIL_MAX ? `${detail.slice(0, DETAIL_MAX)}…` : detail;
  return new MeshError('invalid_request', { detail: text });
}
