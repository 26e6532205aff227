import { readFileSync, writeFileSync } from 'node:fs';
import { isMap, isSeq, parseDocument, Scalar, type YAMLMap } from 'yaml';
import { GATEWAY_TLS_NAME } from '../mesh/tls.ts';

const MARKER = /^-- \[(pre-function|post-function) ([a-z_]+)\]$/;

const LUA_FILE = new URL('./handoff.lua', import.meta.url);
const KONG_FILE = new URL('./kong.yml', import.meta.url);
const SECURE_FILE = new URL('./kong-mtls.yml', import.meta.url);

/** Of our choice: declarative configurations may name their own. */
const CERTIFICATE_ID = '5d1f4c5e-6b1a-4c39-9d3e-6d6573680001';

/**
 * kong.yml with the sections of handoff.lua as the phases of pre-function and post-function. Kong reads one file
 * and its sandbox has no `require`, hence a copy; everything else of the file, comments included, stays.
 */
export function embedHandoff(kongYaml: string, lua: string): string {
  const document = parseDocument(kongYaml);
  if (document.errors[0] !== undefined) throw document.errors[0];
  const plugins = new Map<string, YAMLMap>();
  const services = document.get('services');
  for (const service of isSeq(services) ? services.items : []) {
    const list = isMap(service) ? service.get('plugins') : undefined;
    for (const plugin of isSeq(list) ? list.items : []) {
      if (isMap(plugin)) plugins.set(String(plugin.get('name')), plugin);
    }
  }
  for (const [name, phases] of readSections(lua)) {
    const plugin = plugins.get(name);
    if (plugin === undefined) throw new Error(`kong.yml has no plugin ${name} at a service: add it`);
    plugin.set('config', document.createNode(phases));
  }
  return document.toString({ lineWidth: 0 });
}

/**
 * kong.yml for workers that speak TLS (MESH_TLS_CERT, _KEY and _CA): Kong shows them a certificate, which it takes from
 * its own environment. Whom it reaches is the plugin's to prove: Kong's check is of names, which instances have none of.
 */
export function withClientCertificate(kongYaml: string): string {
  const document = parseDocument(kongYaml);
  document.commentBefore = ` kong.yml for workers that speak TLS, written from it by \`node kong/embed.ts\`. Kong's environment holds the\n certificate for ${GATEWAY_TLS_NAME}: MESH_TLS_CERT and MESH_TLS_KEY, in PEM.`;
  document.set('certificates', [
    { id: CERTIFICATE_ID, cert: '{vault://env/mesh-tls-cert}', key: '{vault://env/mesh-tls-key}' },
  ]);
  const services = document.get('services');
  for (const service of isSeq(services) ? services.items : []) {
    if (!isMap(service)) continue;
    service.set('protocol', 'https');
    service.set('client_certificate', CERTIFICATE_ID);
    service.set('tls_verify', false);
  }
  return document.toString({ lineWidth: 0 });
}

/** The marked sections of handoff.lua: plugin → phase → its one chunk, as a block literal. */
function readSections(lua: string): Map<string, Record<string, Scalar[]>> {
  const plugins = new Map<string, Record<string, Scalar[]>>();
  let chunk: Scalar<string> | undefined;
  for (const line of lua.split('\n')) {
    const [, plugin, phase] = MARKER.exec(line) ?? [];
    if (plugin !== undefined && phase !== undefined) {
      chunk = new Scalar('');
      chunk.type = Scalar.BLOCK_LITERAL;
      plugins.set(plugin, { ...plugins.get(plugin), [phase]: [chunk] });
    } else if (chunk !== undefined) chunk.value += `${line}\n`;
  }
  for (const scalar of [...plugins.values()].flatMap(phases => Object.values(phases).flat())) {
    scalar.value = `${String(scalar.value).trim()}\n`;
  }
  return plugins;
}

if (import.meta.main) {
  const text = embedHandoff(readFileSync(KONG_FILE, 'utf8'), readFileSync(LUA_FILE, 'utf8'));
  writeFileSync(KONG_FILE, text);
  writeFileSync(SECURE_FILE, withClientCertificate(text));
}
