import { consulName, SERVICE_NAME_PATTERN } from '../../mesh/names.ts';

const NAME_LENGTH = 63;

/** What a service is called on its way through the mesh. */
export interface ServiceNames {
  /** In `/api/v1/mcp/<name>`. */
  name: string;
  consul: string;
  /** What was changed, and why. */
  changes: string[];
}

/** Services of the registry: their Consul names by their own. */
export type KnownNames = ReadonlyMap<string, string>;

/**
 * Names for servers by the names that a client has for them. A valid one stays; others are made valid, and get a number
 * when another has the name already: those that are valid come first, then the order of the file. Two that differ only
 * in "_" and "-" have one name in Consul: the first keeps it, the next gets a number there. A name that the registry
 * knows is that service, with its name in Consul.
 */
export function nameServices(wanted: readonly string[], known: KnownNames): ServiceNames[] {
  const valid = new Set<string>();
  const routes = wanted.map(name => {
    if (!SERVICE_NAME_PATTERN.test(name) || valid.has(name)) return undefined;
    valid.add(name);
    return name;
  });
  const taken = new Set(valid);
  const used = new Map([...known].map(([name, consul]) => [consul, name]));
  return wanted.map((original, i) => {
    const changes: string[] = [];
    const name = routes[i] ?? unique(validName(original), taken);
    taken.add(name);
    if (name !== original) changes.push(renamed(original, name));
    const own = known.get(name);
    if (own !== undefined) return { name, consul: own, changes };
    const first = consulLabel(name);
    const consul = unique(first, used);
    if (consul !== first)
      changes.push(
        `${consul} in Consul: ${first} is the name of ${used.get(first)} there, as "_" becomes "-"`,
      );
    used.set(consul, name);
    return { name, consul, changes };
  });
}

function renamed(original: string, name: string): string {
  const same = validName(original) === name;
  const why = same ? 'a name is of a-z, 0-9, "-" and "_"' : `another server has ${validName(original)}`;
  return `${name} in place of ${JSON.stringify(original)}: ${why}`;
}

function validName(text: string): string {
  if (SERVICE_NAME_PATTERN.test(text)) return text;
  const name = text
    .normalize('NFKD')
    .replace(/\p{Mark}/gu, '')
    .toLowerCase()
    .replace(/[^a-z0-9_-]+/g, '-')
    .replace(/^[-_]+/, '')
    .slice(0, NAME_LENGTH)
    .replace(/[-_]+$/, '');
  return name || 'server';
}

/** The Consul name as a DNS label (RFC 1123), which `mcp-` before a long name is not. */
function consulLabel(name: string): string {
  return consulName(name).slice(0, NAME_LENGTH).replace(/-+$/, '');
}

function unique(name: string, taken: { has(name: string): boolean }): string {
  if (!taken.has(name)) return name;
  for (let n = 2; ; n += 1) {
    const suffix = `-${n}`;
    const next = `${name.slice(0, NAME_LENGTH - suffix.length).replace(/[-_]+$/, '')}${suffix}`;
    if (!taken.has(next)) return next;
  }
}
