import { readFileSync } from 'node:fs';
import { parse } from 'yaml';
import { z } from 'zod';

const protocols = z.array(z.enum(['http', 'https']));

const plugin = z.strictObject({
  name: z.string(),
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
  protocol: z.literal('http').default('http'),
  retries: z.int().min(0).default(5),
  connect_timeout: z.int().min(1).default(60_000),
  write_timeout: z.int().min(1).default(60_000),
  read_timeout: z.int().min(1).default(60_000),
  routes: z.array(route),
  plugins: z.array(plugin).default([]),
});

const document = z.strictObject({ _format_version: z.literal('3.0'), services: z.array(service) });

export type Service = z.infer<typeof service>;
export type Route = z.infer<typeof route>;
export type PluginConfig = z.infer<typeof plugin>;

/** Reads kong.yml. What the stand-in does not do is an error that names the field: it would be silently different. */
export function loadDeclarative(file: string): Service[] {
  const result = document.safeParse(parse(readFileSync(file, 'utf8')));
  if (!result.success) throw new Error(`${file}: ${z.prettifyError(result.error)}`);
  return result.data.services;
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
