import { readFileSync, writeFileSync } from 'node:fs';
import { isMap, isSeq, parseDocument, Scalar, type YAMLMap } from 'yaml';

const MARKER = /^-- \[(pre-function|post-function) ([a-z_]+)\]$/;

const LUA_FILE = new URL('./handoff.lua', import.meta.url);
const KONG_FILE = new URL('./kong.yml', import.meta.url);

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
  writeFileSync(KONG_FILE, embedHandoff(readFileSync(KONG_FILE, 'utf8'), readFileSync(LUA_FILE, 'utf8')));
}
