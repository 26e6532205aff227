import { BlockList, isIP, isIPv4 } from 'node:net';
import { z } from 'zod';
import { suggestion } from './yaml-faults.ts';

/** Schema of the access policy file (access.yaml). */

/** Signatures that a verifier checks with a public key (RFC 7518 §3.1, RFC 8037). */
const SIGNATURE_ALGORITHMS = [
  'RS256',
  'RS384',
  'RS512',
  'PS256',
  'PS384',
  'PS512',
  'ES256',
  'ES384',
  'ES512',
  'EdDSA',
] as const;

/** Stands in principals, logs and metric labels. */
export const KEY_ID_PATTERN = /^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$/;
/** Commas separate roles on the command line; a control character could end a header or a log line. */
const ROLE_PATTERN = /^[^,\s\p{C}]([^,\p{C}]{0,126}[^,\s\p{C}])?$/u;
const SERVICE_GLOB = /^[a-z0-9_*-]{1,63}$/;
const HASH_PATTERN = /^sha256:[0-9a-f]{64}$/;
const PATTERN_MAX = 256;
const DAY_S = 86_400;

const positive = z.int().min(1);
const windowS = positive.max(DAY_S).describe('Seconds, a day at most: longer periods are a quota.');

const pattern = z
  .string()
  .min(1, 'is empty; "*" stands for every name')
  .max(PATTERN_MAX, `is longer than ${PATTERN_MAX} characters`)
  .refine(text => text === text.trim(), 'begins or ends with a space, as no name does; take it out');
const patterns = z.array(pattern).min(1, 'names nothing; leave it out, or name something').exactOptional();

const rule = z.strictObject({
  service: z
    .string()
    .regex(SERVICE_GLOB, 'is no service name: lower-case letters, digits, "-" and "_", with "*" for any run')
    .describe('Service, or a pattern of services.'),
  tools: patterns.describe('Names of tools; `*` stands for any run of characters.'),
  prompts: patterns.describe('Names of prompts, likewise.'),
  resources: patterns.describe('URIs of resources, likewise.'),
});

const roleName = z
  .string()
  .regex(
    ROLE_PATTERN,
    'is no role name: 128 characters at most, none of them a comma or a control character',
  );

const roleSchema = z.strictObject({
  allow: z.array(rule).default([]).describe('What is allowed; a rule for a service alone allows all of it.'),
  deny: z.array(rule).default([]).describe('What is not, whatever any role of the caller allows.'),
  mesh: z
    .array(z.enum(['register', 'deregister']))
    .default([])
    .describe('Actions of /api/v1/mesh.'),
  rate_limit: z.strictObject({ requests: positive, window_s: windowS }).optional().describe('HTTP requests.'),
  quota: z
    .strictObject({ calls: positive, period: z.enum(['day', 'month']) })
    .optional()
    .describe('Tool calls, times their cost, per UTC day or month.'),
  in_flight: positive.optional().describe('Requests at once.'),
  tool_rates: z
    .array(z.strictObject({ tool: pattern, calls: positive, window_s: windowS }))
    .default([])
    .describe('Calls of the tools that a pattern names; each pattern that matches a tool holds for it.'),
});

export const expiresSchema = z.union(
  [z.iso.date(), z.iso.datetime({ offset: true })],
  'must be a date such as 2027-01-01 (UTC) or a time such as 2027-01-01T12:00:00Z',
);

const hash = z.string().superRefine((text, context) => {
  if (HASH_PATTERN.test(text)) return;
  // The key itself is never repeated: errors end up in logs.
  const message = text.startsWith('mk_')
    ? 'is the key itself, which must not stand here: it is known now, so make another by `mesh keys create`'
    : 'must be "sha256:" and 64 hex digits in lower case; `mesh keys create` makes one';
  context.addIssue({ code: 'custom', message });
});

const apiKeySchema = z.strictObject({
  id: z
    .string()
    .regex(
      KEY_ID_PATTERN,
      'must be letters, digits, ".", "_", "@" and "-", 64 at most, not starting with a sign',
    )
    .describe('Name of the holder; its principal is key:<id>.'),
  hash: hash.describe('SHA-256 of the key.'),
  roles: z.array(z.string()).describe('Roles of the holder.'),
  expires: expiresSchema.nullish().describe('When the key, and those before it, end.'),
  previous: z
    .array(z.strictObject({ hash, expires: expiresSchema }))
    .default([])
    .describe('Keys that the current one replaced, until they expire; `mesh keys rotate` writes them.'),
});

const algorithm = z.string().superRefine((name, context) => {
  if ((SIGNATURE_ALGORITHMS as readonly string[]).includes(name)) return;
  const message =
    name.toLowerCase() === 'none'
      ? '"none" takes tokens that nobody signed; leave it out'
      : /^hs\d/i.test(name)
        ? `"${name}" signs with a shared secret: who can check a token could make one, and a public key is no secret; take ES256 or EdDSA`
        : `"${name}" is not one of ${SIGNATURE_ALGORITHMS.join(', ')}${suggestion(name, SIGNATURE_ALGORITHMS)}`;
  context.addIssue({ code: 'custom', message });
});

const issuerUrl = z.string().superRefine((text, context) => {
  const message = urlFault(text);
  if (message !== undefined) context.addIssue({ code: 'custom', message });
});

const jwtSchema = z.strictObject({
  issuer: issuerUrl.describe('The `iss` of its tokens, letter for letter.'),
  jwks_uri: issuerUrl.describe('Where its public keys are (RFC 7517).'),
  audience: z
    .string()
    .min(1)
    .refine(text => !text.endsWith('/'), 'ends with "/"; leave it out: a service is added as "/<name>"')
    .describe('The `aud` of its tokens: this, or this + "/" + service.'),
  algorithms: z
    .array(algorithm)
    .min(1, 'names none; take ES256 or EdDSA, or leave it out')
    .default(['RS256', 'ES256', 'EdDSA'])
    .describe('Signature algorithms that are accepted.'),
  roles_claim: z.string().min(1).default('roles').describe("Claim that lists the caller's roles."),
});

const network = z.string().superRefine((text, context) => {
  if (isNetwork(text)) return;
  const hint = isIP(text) === 0 ? '' : `; write ${text}/${isIPv4(text) ? 32 : 128} for this one address`;
  context.addIssue({ code: 'custom', message: `"${text}" is no network such as 10.0.0.0/8${hint}` });
});

export const accessPolicySchema = z.strictObject({
  version: z.literal(1).default(1).describe('Version of this format.'),
  anonymous: z.string().nullable().default(null).describe('Role of callers without credentials; null: none.'),
  allowed_networks: z.array(network).default([]).describe('Networks that instances may be registered in.'),
  api_keys: z.array(apiKeySchema).default([]).describe('API keys, by their hashes.'),
  jwt: z.array(jwtSchema).default([]).describe('Issuers of access tokens.'),
  roles: z.record(roleName, roleSchema).default({}).describe('What a caller may do, by role.'),
});

export type PolicyFields = z.infer<typeof accessPolicySchema>;

/** Tokens and keys on a plain connection can be read and replaced on the way (RFC 9068 §4, RFC 8414 §2). */
function urlFault(text: string): string | undefined {
  const url = URL.parse(text);
  if (!url || !['https:', 'http:'].includes(url.protocol)) return `"${text}" is no https URL`;
  if (url.username !== '' || url.password !== '') return 'holds a user name or password; take it out';
  if (url.protocol === 'https:' || isLoopback(url.hostname)) return undefined;
  return `"${text}" must be https: without it, anybody on the way could put in keys of their own`;
}

function isLoopback(hostname: string): boolean {
  if (hostname === 'localhost' || hostname === '[::1]') return true;
  return isIPv4(hostname) && hostname.startsWith('127.');
}

function isNetwork(text: string): boolean {
  const [, address = '', bits = ''] = /^([0-9A-Fa-f.:]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const family = isIP(address);
  if (family === 0) return false;
  try {
    new BlockList().addSubnet(address, Number(bits), family === 4 ? 'ipv4' : 'ipv6');
    return true;
  } catch {
    // The prefix is longer than the address.
    return false;
  }
}
