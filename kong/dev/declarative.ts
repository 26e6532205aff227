import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';

const protocols = z.array(z.enum(['http', 'https']));

const plugin = z.strictObject({
  name: z.string(),
  enabled: z.boolean().default(true),
  config: z.record(z.string(), z.unknown()).nullish(),
});

const route = z.strictObject({
  name: z.string(),
  paths: z.array(z.string().startsWith('/')).nonempty(),
  methods: z.array(z.string()).optional(),
  protocols: protocols.default(['http', 'https']),
  strip_path: z.literal(false, 'the stand-in forwards the whole path only: set strip_path: false'),
  preserve_host: z.literal(false).default(false),
  request_buffering: z.literal(false, 'the stand-in streams only: set request_buffering: false'),
  response_buffering: z.literal(false, 'the stand-in streams only: set response_buffering: false'),
});

/** Kong's own defaults; times in milliseconds. */
const service = z.strictObject({
  name: z.string(),
  host: z.string(),
  port: z.int().min(1).max(65535).default(80),
  protocol: z.enum(['http', 'https']).default('http'),
  /** Id of the certificate that is shown to upstreams. */
  client_certificate: z.string().optional(),
  tls_verify: z
    .literal(false, 'the stand-in does not check certificates: set tls_verify: false')
    .default(false),
  retries: z.int().min(0).default(5),
  connect_timeout: z.int().min(1).default(60_000),
  write_timeout: z.int().min(1).default(60_000),
  read_timeout: z.int().min(1).default(60_000),
  routes: z.array(route),
  plugins: z.array(plugin).default([]),
});

const certificate = z.strictObject({ id: z.string(), cert: z.string(), key: z.string() });

const document = z.strictObject({
  _format_version: z.literal('3.0'),
  certificates: z.array(certificate).default([]),
  plugins: z.array(plugin).default([]),
  services: z.array(service),
});

/** What of Kong neither lets a call in nor keeps one out: without these a mesh on one machine does the same. */
const NOT_RUN_HERE = new Set([
  'correlation-id',
  'cors',
  'opentelemetry',
  'prometheus',
  'request-transformer',
  'response-transformer',
]);

export type Service = z.infer<typeof service> & { certificate?: { cert: string; key: string } | undefined };
export type Route = z.infer<typeof route>;
export type PluginConfig = z.infer<typeof plugin>;

/**
 * Reads kong.yml. What the stand-in does not do is an error that names the field: it would be silently different.
 * Plugins of Kong's that it does without are told to `onIgnored`, once each. `vault`: what `{vault://env/…}` refers to.
 */
export function loadDeclarative(
  file: string,
  onIgnored: (plugins: string[]) => void,
  vault: Readonly<Record<string, string>> = {},
): Service[] {
  const result = document.safeParse(parse(readFileSync(file, 'utf8')));
  if (!result.success) throw new Error(`${file}: ${z.prettifyError(result.error)}`);
  const ignored = new Set<string>();
  const isRun = ({ name, enabled }: PluginConfig): boolean => {
    if (enabled && NOT_RUN_HERE.has(name)) ignored.add(name);
    return enabled && !NOT_RUN_HERE.has(name);
  };
  const { plugins, certificates } = result.data;
  const services: Service[] = result.data.services;
  const everywhere = plugins.filter(isRun);
  for (const service of services) {
    const shown = certificates.find(({ id }) => id === service.client_certificate);
    if (service.client_certificate !== undefined && !shown)
      throw new Error(`${file}: there is no certificate ${service.client_certificate}`);
    service.certificate = shown && { cert: unlock(shown.cert, vault), key: unlock(shown.key, vault) };
    const own = service.plugins.filter(isRun);
    // Kong: the narrower of two configurations of a plugin is the one that runs.
    service.plugins = [...own, ...everywhere.filter(({ name }) => !own.some(other => other.name === name))];
  }
  if (ignored.size > 0) onIgnored([...ignored]);
  return services;
}

/** `{vault://env/<name>}`, or the text itself. */
function unlock(text: string, vault: Readonly<Record<string, string>>): string {
  const [, name] = /^\{vault:\/\/env\/([a-z0-9-]+)\}$/.exec(text) ?? [];
  if (name === undefined) return text;
  const value = vault[name];
  if (value === undefined) throw new Error(`${text}: the gateway stand-in was given no ${name}`);
  return value;
}

/** Kong's router for plain paths: the longest prefix wins. */
export function matchRoute(
  services: readonly Service[],
  method: string,
  path: string,
): { service: Service; route: Route } | undefined {
  let best: { service: Service; route: Route; length: number } | undefined;
  for (const candidate of services) {
    for (const route of candidate.routes) {
      if (route.methods !== undefined && !route.methods.includes(method)) continue;
      for (const prefix of route.paths) {
        if (path.startsWith(prefix) && prefix.length > (best?.length ?? 0)) {
          best = { service: candidate, route, length: prefix.length };
        }
      }
    }
  }
  return best;
}
