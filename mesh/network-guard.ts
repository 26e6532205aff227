import { Resolver } from 'node:dns/promises';
import { BlockList, isIPv4, isIPv6 } from 'node:net';
import { MeshError } from './errors.ts';

/** All addresses of a host name, IPv4 and IPv6. Rejects when any of them cannot be told. */
export type ResolveHost = (host: string) => Promise<string[]>;

/** Says why nothing may be registered at an IP address, or undefined when it may. */
export type NetworkGuard = (address: string) => string | undefined;

interface Network {
  /** As CIDR. */
  text: string;
  version: 4 | 6;
  address: string;
  bits: number;
  list: BlockList;
}

interface SpecialNetwork extends Network {
  what: string;
}

/** IPv6 addresses that stand for an IPv4 address, which whoever checks them must look at, too. */
interface Embedding extends SpecialNetwork {
  /** The two halves of the IPv4 address, from the eight parts of the IPv6 address. */
  halves(parts: readonly number[]): [number, number];
}

const NAME_MAX = 253;
/** Underscores are not for host names, but Docker makes names of them. */
const NAME_PATTERN =
  /^(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?$/i;
/** Then it is an IPv4 address or nothing (WHATWG URL, "ends in a number"): inet_aton reads 0x7f.1 as 127.0.0.1. */
const NUMERIC_END = /(?:^|\.)(?:\d+|0x[0-9a-f]*)$/i;
const ADDRESSES_MAX = 32;
const DNS = { timeout: 1500, tries: 2, deadlineMs: 5000 };
/** There is no such record; anything else means that nobody knows. */
const NO_RECORD = new Set(['ENODATA', 'ENOTFOUND']);

const lastTwo = (parts: readonly number[]): [number, number] => [part(parts, 6), part(parts, 7)];

/**
 * Where no instance is, unless somebody says so: the special-purpose registries of IANA (RFC 6890), and the addresses
 * from which clouds hand credentials to whoever asks. `allowed_networks` opens them only by an entry that lies inside.
 */
const SPECIAL: readonly SpecialNetwork[] = [
  special('0.0.0.0/8', 'an unspecified address'),
  special('100.64.0.0/10', 'an address shared by providers (RFC 6598)'),
  special('100.100.100.200/32', 'a cloud metadata address'),
  special('127.0.0.0/8', 'a loopback address'),
  special('168.63.129.16/32', 'a cloud metadata address'),
  special('169.254.0.0/16', 'a link-local address'),
  special('169.254.169.0/24', 'a cloud metadata address'),
  special('169.254.170.0/24', 'a cloud metadata address'),
  special('192.0.0.0/24', 'an address of IETF protocols'),
  special('192.0.2.0/24', 'an address for documentation'),
  special('192.88.99.0/24', 'a 6to4 relay address'),
  special('198.18.0.0/15', 'an address for benchmarks'),
  special('198.51.100.0/24', 'an address for documentation'),
  special('203.0.113.0/24', 'an address for documentation'),
  special('224.0.0.0/4', 'a multicast address'),
  special('240.0.0.0/4', 'a reserved address'),
  special('255.255.255.255/32', 'the broadcast address'),
  special('::/128', 'the unspecified address'),
  special('::1/128', 'the loopback address'),
  special('100::/32', 'a discard address'),
  special('2001::/23', 'an address of IETF protocols'),
  special('2001:db8::/32', 'an address for documentation'),
  special('3fff::/20', 'an address for documentation'),
  special('5f00::/16', 'a segment routing address'),
  special('fd00:42::42/128', 'a cloud metadata address'),
  special('fd00:c1::a9fe:a9fe/128', 'a cloud metadata address'),
  special('fd00:ec2::/32', 'a cloud metadata address'),
  special('fd20:ce::/32', 'a cloud metadata address'),
  special('fe80::/10', 'a link-local address'),
  special('fec0::/10', 'a site-local address'),
  special('ff00::/8', 'a multicast address'),
];

const EMBEDDINGS: readonly Embedding[] = [
  // Without :: and ::1, which lie in it, too: see embeddingsOf.
  { ...special('::/96', 'an IPv4-compatible address'), halves: lastTwo },
  { ...special('::ffff:0:0/96', 'an IPv4-mapped address'), halves: lastTwo },
  { ...special('::ffff:0:0:0/96', 'an IPv4-translated address'), halves: lastTwo },
  { ...special('64:ff9b::/96', 'a NAT64 address'), halves: lastTwo },
  // Networks choose where in it the IPv4 address is (RFC 8215); mostly at the end.
  { ...special('64:ff9b:1::/48', 'a NAT64 address'), halves: lastTwo },
  { ...special('2002::/16', 'a 6to4 address'), halves: parts => [part(parts, 1), part(parts, 2)] },
  // The client's address has its bits inverted (RFC 4380 §4).
  {
    ...special('2001::/32', 'a Teredo address'),
    halves: parts => [part(parts, 6) ^ 0xffff, part(parts, 7) ^ 0xffff],
  },
];

/**
 * Keeps what callers register inside the networks that the access policy allows (`allowed_networks`, CIDR). The wide
 * entry opens no narrow door: 0.0.0.0/0 allows neither loopback nor a cloud's metadata, ::/0 no address that stands for
 * an IPv4 address.
 * @throws Error when an entry is no CIDR block
 */
export function createNetworkGuard(allowedNetworks: readonly string[]): NetworkGuard {
  const allowed = allowedNetworks.map(network);
  const isOpen = (address: string, range: Network) =>
    allowed.some(entry => isInside(entry, range) && contains(entry, address));
  const closed = (address: string, ranges: readonly SpecialNetwork[]) => {
    const range = ranges.find(one => contains(one, address) && !isOpen(address, one));
    if (!range) return undefined;
    return `${address} is ${range.what}; only an entry of allowed_networks inside ${range.text} allows it`;
  };

  return address => {
    const embeddings = embeddingsOf(address);
    const refusal = closed(address, [...embeddings, ...SPECIAL]);
    if (refusal !== undefined) return refusal;
    // A NAT64 gateway that may be used for much leads to the loopback and the metadata of others as well.
    for (const embedding of embeddings) {
      const inner = closed(dotted(embedding.halves(partsOf(address))), SPECIAL);
      if (inner !== undefined) return `${address} stands for ${inner}`;
    }
    if (allowed.some(entry => contains(entry, address))) return undefined;
    return `${address} is in none of the allowed_networks of the access policy; have its network added there`;
  };
}

/**
 * The IP address, in its canonical form, that an address or a host name of a caller's stands for. Of a name each
 * address must be allowed, and the first (in an order that DNS cannot change) is what counts from now on: who owns the
 * name may let it lead elsewhere a second later.
 * @throws MeshError `invalid_request` when it is neither, or unknown; `forbidden` when the guard refuses it
 */
export async function pinAddress(
  text: string,
  guard: NetworkGuard,
  resolve: ResolveHost = createResolver(),
): Promise<string> {
  const literal = readLiteral(text);
  const addresses = literal === undefined ? await resolveAll(text.toLowerCase(), resolve) : [literal];
  for (const address of addresses) {
    const refusal = guard(address);
    if (refusal === undefined) continue;
    const name = literal === undefined ? `"${text}" leads to ${address}, but ` : '';
    throw new MeshError('forbidden', { detail: `address: ${name}${refusal}` });
  }
  return addresses[0] as string;
}

/**
 * Resolves by DNS alone, not by getaddrinfo: four names that nobody answers for would hold up all of Node's file access.
 * `servers`: in place of the system's, as `Resolver.setServers` takes them.
 */
export function createResolver(servers?: readonly string[]): ResolveHost {
  return async host => {
    // RFC 6761 §6.3: DNS is not to be asked.
    if (host === 'localhost' || host.endsWith('.localhost')) return ['127.0.0.1', '::1'];
    const resolver = new Resolver(DNS);
    if (servers) resolver.setServers(servers);
    const timer = setTimeout(() => resolver.cancel(), DNS.deadlineMs);
    const none = (error: NodeJS.ErrnoException): string[] => {
      if (NO_RECORD.has(error.code ?? '')) return [];
      throw error;
    };
    try {
      const records = [resolver.resolve4(host).catch(none), resolver.resolve6(host).catch(none)];
      return (await Promise.all(records)).flat();
    } finally {
      clearTimeout(timer);
    }
  };
}

/** The canonical form of an IP address; undefined of a host name. */
function readLiteral(text: string): string | undefined {
  if (isIPv4(text)) return text;
  if (text.includes('%')) throw invalid(text, 'has a zone, which means something on one host only');
  if (isIPv6(text)) return canonicalIPv6(text);
  if (text.endsWith('.')) throw invalid(text, 'ends with a dot; leave it out');
  if (text.length > NAME_MAX || !NAME_PATTERN.test(text)) {
    throw invalid(text, 'must be an IP address or a host name, without scheme, port, brackets and path');
  }
  if (!NUMERIC_END.test(text)) return undefined;
  const url = URL.parse(`http://${text}`);
  const hint = url ? `, such as ${url.hostname}` : '';
  throw invalid(text, `is an IPv4 address that programs read differently; write four decimal numbers${hint}`);
}

async function resolveAll(host: string, resolve: ResolveHost): Promise<string[]> {
  const found = await resolve(host).catch((error: NodeJS.ErrnoException) => {
    throw invalid(host, `cannot be resolved (${error.code ?? 'unknown fault'}); write its IP address`);
  });
  if (found.length === 0) throw invalid(host, 'is not known to DNS; write its IP address');
  if (found.length > ADDRESSES_MAX) throw invalid(host, 'has too many addresses; write one of them');
  const literals = found.map(address => {
    const literal = readLiteral(address);
    if (literal === undefined) throw invalid(host, 'leads to something that is no IP address');
    return literal;
  });
  return [...new Set(literals)].sort((a, b) => Number(isIPv6(a)) - Number(isIPv6(b)) || (a < b ? -1 : 1));
}

/** Which IPv4 address in disguise it may be. */
function embeddingsOf(address: string): Embedding[] {
  if (isIPv4(address) || address === '::' || address === '::1') return [];
  const found = EMBEDDINGS.filter(embedding => contains(embedding, address));
  const parts = partsOf(address);
  // In any network (RFC 5214 §6.1); the bits for "universal" and "group" may be set.
  if ((part(parts, 4) & 0xfcff) === 0 && part(parts, 5) === 0x5efe) {
    const range = special(`${parts.slice(0, 6).map(hex).join(':')}::/96`, 'an ISATAP address');
    found.push({ ...range, halves: lastTwo });
  }
  return found;
}

function network(text: string): Network {
  const [address = '', bits = ''] = text.split('/');
  const version = isIPv4(address) ? 4 : 6;
  const list = new BlockList();
  list.addSubnet(address, Number(bits), version === 4 ? 'ipv4' : 'ipv6');
  return { text, version, address, bits: Number(bits), list };
}

function special(text: string, what: string): SpecialNetwork {
  return { ...network(text), what };
}

/** BlockList itself takes 10.0.0.0/8 to contain ::ffff:10.0.0.1, and ::/0 to contain 10.0.0.1. */
function contains({ version, list }: Network, address: string): boolean {
  const own = isIPv4(address) ? 4 : 6;
  return version === own && list.check(address, `ipv${own}`);
}

function isInside(inner: Network, outer: Network): boolean {
  return inner.bits >= outer.bits && contains(outer, inner.address);
}

/** RFC 5952, but for the dotted end. */
function canonicalIPv6(address: string): string {
  return new URL(`http://[${address}]`).hostname.slice(1, -1);
}

/** The eight parts of an IPv6 address. */
function partsOf(address: string): number[] {
  const [head = '', tail] = canonicalIPv6(address).split('::');
  const read = (text: string) =>
    text === '' ? [] : text.split(':').map(digits => Number.parseInt(digits, 16));
  const [before, after] = [read(head), read(tail ?? '')];
  return [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after];
}

function part(parts: readonly number[], index: number): number {
  return parts[index] as number;
}

function dotted([high, low]: [number, number]): string {
  return [high >> 8, high & 0xff, low >> 8, low & 0xff].join('.');
}

function hex(value: number): string {
  return value.toString(16);
}

function invalid(text: string, what: string): MeshError {
  return new MeshError('invalid_request', { detail: `address: "${text.slice(0, NAME_MAX)}" ${what}` });
}
