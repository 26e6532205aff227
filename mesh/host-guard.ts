import { isIP } from 'node:net';
import { BoundedCache } from './bounded-cache.ts';

interface HostGuardOptions {
  /** Addresses and names of this endpoint, beside loopback. */
  hosts: readonly string[];
  /** Origins of web pages that may call, beside loopback ones. */
  origins: readonly string[];
  /** Also serve IP literals and names without a dot, which no foreign DNS zone can point at us. */
  localNames?: boolean;
}

/** Says why a request with these headers is refused, or undefined when it may pass. */
export type HostGuard = (host: string | undefined, origin: string | undefined) => string | undefined;

const LOOPBACK = new Set(['localhost', '127.0.0.1', '::1']);

const SERVED_MAX = 100;

/**
 * Refuses what a browser sends when a hostile page has rebound its own name to our address: a Host that is not ours,
 * or an Origin that nobody allowed (MCP Streamable HTTP, security warning).
 */
export function createHostGuard({ hosts, origins, localNames = false }: HostGuardOptions): HostGuard {
  const knownHosts = new Set([...LOOPBACK, ...hosts.map(host => host.toLowerCase())]);
  const knownOrigins = new Set(origins.map(origin => origin.toLowerCase()));
  /** Header fields that were found good: nearly all requests bear the same. */
  const served = new BoundedCache<string, true>(SERVED_MAX);
  const servesHost = (name: string) =>
    knownHosts.has(name) || (localNames && (isIP(name) !== 0 || !name.includes('.')));

  const isServed = (host = '') => {
    if (served.get(host)) return true;
    const name = hostname(`http://${host}`);
    if (name === undefined || !servesHost(name)) return false;
    served.set(host, true);
    return true;
  };

  return (host, origin) => {
    if (!isServed(host)) {
      return `Host "${host ?? ''}" is not served; MESH_ALLOWED_HOSTS may name it`;
    }
    if (origin === undefined || knownOrigins.has(origin.toLowerCase())) return undefined;
    if (LOOPBACK.has(hostname(origin) ?? '')) return undefined;
    return `Origin "${origin}" is not allowed; MESH_ALLOWED_ORIGINS may name it`;
  };
}

/** Lower-case host of a URL without its port and an IPv6 address's brackets. */
function hostname(url: string): string | undefined {
  if (!URL.canParse(url)) return undefined;
  const { hostname: name } = new URL(url);
  return name.startsWith('[') ? name.slice(1, -1) : name;
}
