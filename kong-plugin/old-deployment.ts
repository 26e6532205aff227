import { createHash } from 'node:crypto';
import type { AccessPolicy } from '../mesh/access-policy.ts';
import { toMeshError } from '../mesh/errors.ts';
import { createNetworkGuard, pinAddress, type ResolveHost } from '../mesh/network-guard.ts';
import type { KnownService } from './discovery.ts';

/** Where Kong reaches a service's old deployment (`legacy_url`). */
export interface OldTarget {
  /** IP address, checked and pinned: whoever owns the name may let it lead elsewhere a second later. */
  address: string;
  port: number;
  path: string;
  /** For the Host header. */
  host: string;
}

export type FoundTarget =
  | { target: OldTarget }
  /** `mayPass`: DNS did not answer, or not with an address. */
  | { target: undefined; fault: string; mayPass: boolean };

/** The old deployments of services that are being moved. */
export interface OldDeployments {
  /** Where it is now; a fault in words when no request can be sent there. */
  find(url: string): Promise<FoundTarget>;
  /** As `find`, from what is known already; undefined before anybody has looked. */
  peek(url: string): FoundTarget | undefined;
}

interface OldDeploymentsOptions {
  policy(): AccessPolicy | undefined;
  /** Kong speaks TLS to the workers of this mesh, and would to the old deployment, too. */
  isSecure: boolean;
  log(text: string): void;
  resolve?: ResolveHost;
}

interface Known {
  found: FoundTarget;
  /** What the last look said. */
  fault: string | undefined;
  /** By performance.now(). */
  lookedAt: number;
  policy: AccessPolicy | undefined;
}

const FRESH_MS = 30_000;
const KNOWN_MAX = 1000;
const HTTP_PORT = 80;
const HASH_RANGE = 2 ** 32;
/** Of what a worker mints: `<owner>.<payload>.<mac>`, all base64url. */
const OWN_SESSION = /^[\w-]{8}\.[\w-]+\.[\w-]{22}$/;

/**
 * Addresses of old deployments, looked up once in half a minute. They are the registry's to name and the access policy's
 * to allow (`allowed_networks`), as instances are that somebody registers.
 */
export function createOldDeployments(options: OldDeploymentsOptions): OldDeployments {
  const known = new Map<string, Known>();
  const looking = new Map<string, Promise<FoundTarget>>();
  const look = async (url: string): Promise<FoundTarget> => {
    const policy = options.policy();
    const now = await locate(url, policy, options);
    const before = known.get(url);
    const fault = 'fault' in now ? now.fault : undefined;
    if (fault !== undefined && fault !== before?.fault) options.log(`legacy_url ${url}: ${fault}`);
    // An outage of DNS moves nobody.
    const isKept = 'fault' in now && now.mayPass && before?.found.target && before.policy === policy;
    const found = isKept ? before.found : now;
    if (known.size >= KNOWN_MAX) known.clear();
    known.set(url, { found, fault, lookedAt: performance.now(), policy });
    return found;
  };
  /** One look at a time. */
  const lookOnce = (url: string): Promise<FoundTarget> => {
    const present = looking.get(url) ?? look(url).finally(() => looking.delete(url));
    looking.set(url, present);
    return present;
  };
  return {
    async find(url) {
      const entry = known.get(url);
      if (!entry || entry.policy !== options.policy()) return lookOnce(url);
      // What is known serves until the next look has found out.
      if (performance.now() - entry.lookedAt > FRESH_MS) void lookOnce(url);
      return entry.found;
    },
    peek: url => known.get(url)?.found,
  };
}

/** Whose session a session id is, by its form: what no worker has minted belongs to the old deployment. */
export function isOwnSession(id: string): boolean {
  return OWN_SESSION.test(id);
}

/** Shares out new sessions, and callers where there are none. */
export class TrafficShare {
  readonly #credits = new Map<string, number>();

  /** Whether the next new session goes to the mesh: evenly, so that 25 percent are every fourth one. */
  takesSession({ name }: KnownService, percent: number): boolean {
    if (this.#credits.size >= KNOWN_MAX && !this.#credits.has(name)) this.#credits.clear();
    const credit = (this.#credits.get(name) ?? 0) + percent;
    const isTaken = credit >= 100;
    this.#credits.set(name, isTaken ? credit - 100 : credit);
    return isTaken;
  }

  /** Whether a caller without sessions is on the mesh's side; a larger share takes nobody from it. */
  takesCaller({ name }: KnownService, percent: number, caller: string): boolean {
    const hash = createHash('sha256').update(`${name}\0${caller}`).digest().readUInt32BE();
    return (hash / HASH_RANGE) * 100 < percent;
  }
}

async function locate(
  url: string,
  policy: AccessPolicy | undefined,
  { isSecure, resolve }: OldDeploymentsOptions,
): Promise<FoundTarget> {
  const parsed = URL.parse(url);
  const fault = isSecure ? 'Kong speaks TLS to workers here, and can reach no other way' : faultOf(parsed);
  if (!parsed || fault !== undefined)
    return { target: undefined, fault: fault ?? 'is no URL', mayPass: false };
  const { hostname, port, pathname, host } = parsed;
  try {
    const guard = createNetworkGuard(policy?.allowedNetworks ?? []);
    const address = await pinAddress(hostname.replace(/^\[|\]$/g, ''), guard, resolve);
    return { target: { address, port: Number(port) || HTTP_PORT, path: pathname, host } };
  } catch (error) {
    const { code, message } = toMeshError(error);
    return { target: undefined, fault: message, mayPass: code === 'invalid_request' };
  }
}

function faultOf(url: URL | null): string | undefined {
  if (url?.protocol === 'https:')
    return 'Kong reaches targets by the protocol of its service, which is http: name an http address, such as that of a proxy that speaks https for it';
  if (url?.protocol !== 'http:') return 'must be an http URL';
  if (url.username !== '' || url.password !== '') return 'must not hold credentials';
  return url.search === '' ? undefined : 'must have no query';
}
