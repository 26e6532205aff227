import { MeshError } from '../mesh/errors.ts';
import type { Limits } from '../mesh/grants.ts';
import { type Consumed, type LimitStore, limitKey } from '../mesh/limit-store.ts';

interface EnterOptions {
  principal: string;
  service: string;
  /** Of this principal in this service. */
  limits: Limits;
  /** Of this request alone: what the caller calls it may be the name of many. */
  lease: string;
  /** The place is free again after this, whether or not anybody says so. */
  ttlMs: number;
}

export interface RequestLimits {
  /**
   * Counts one HTTP request and takes a place in flight. The answer carries the headers.
   * @throws LimitError `rate_limited` or `too_many_in_flight`; then nothing was counted and no place taken
   * @throws MeshError `rate_limited` when the store is away and the setting is to refuse then
   */
  enter(options: EnterOptions): Promise<{ headers: Record<string, string> }>;
  /** Gives the place back. Idempotent; a lease that is not known is none of ours any more. */
  leave(lease: string): void;
}

/** A refusal with the RateLimit headers of its answer; Retry-After comes from `errorHeaders`, as for every error. */
export class LimitError extends MeshError {
  readonly headers: Record<string, string>;

  constructor(
    code: 'rate_limited' | 'too_many_in_flight',
    {
      detail,
      retryAfterMs,
      headers,
    }: { detail: string; retryAfterMs: number; headers: Record<string, string> },
  ) {
    super(code, { detail, retryAfterMs });
    this.headers = headers;
  }
}

interface Place {
  key: string;
  endsAt: number;
}

/** When a place becomes free is unknown. */
const PLACE_RETRY_MS = 1000;

/**
 * What one principal may ask of one service at the gateway: requests per window and requests in flight.
 * The clock is monotonic: a wall clock that is set would lengthen a window.
 */
export function createLimits({
  store,
  now = () => performance.now(),
}: {
  store: LimitStore;
  now?: () => number;
}): RequestLimits {
  const places = new Map<string, Place>();

  const takePlace = async ({ principal, service, limits, lease, ttlMs }: EnterOptions): Promise<boolean> => {
    if (limits.inFlight === undefined) return true;
    const key = limitKey('in-flight', service, principal);
    if (!(await store.hold(key, lease, { limit: limits.inFlight, ttlMs, now: now() }))) return false;
    dropEnded(places, now());
    places.set(lease, { key, endsAt: now() + ttlMs });
    return true;
  };
  const leave = (lease: string) => {
    const place = places.get(lease);
    if (!place) return;
    places.delete(lease);
    void store.release(place.key, lease);
  };

  return {
    async enter(options) {
      const { limits, lease } = options;
      if (!(await takePlace(options))) {
        const detail = `${limits.inFlight} requests are in flight, which is the limit`;
        const headers = policyHeader(limits);
        throw new LimitError('too_many_in_flight', { detail, retryAfterMs: PLACE_RETRY_MS, headers });
      }
      try {
        return { headers: await countRequest(store, options, now()) };
      } catch (refusal) {
        leave(lease);
        throw refusal;
      }
    },
    leave,
  };
}

async function countRequest(
  store: LimitStore,
  { principal, service, limits }: EnterOptions,
  now: number,
): Promise<Record<string, string>> {
  if (!limits.rate) return {};
  const { requests, windowS } = limits.rate;
  const key = limitKey('rate', windowS, service, principal);
  const counted = await store.consume(key, { limit: requests, windowMs: windowS * 1000, cost: 1, now });
  const headers = { ...policyHeader(limits), ratelimit: state(counted) };
  if (counted.allowed) return headers;
  const detail = `${requests} requests in ${windowS} s are the limit`;
  throw new LimitError('rate_limited', { detail, retryAfterMs: counted.resetMs, headers });
}

/** draft-ietf-httpapi-ratelimit-headers-10 §3: q = quota of a window, w = its seconds. */
function policyHeader({ rate }: Limits): Record<string, string> {
  return rate ? { 'ratelimit-policy': `"default";q=${rate.requests};w=${rate.windowS}` } : {};
}

/** §4 of it: r = what is left, t = seconds until the window ends. */
function state({ remaining, resetMs }: Consumed): string {
  return `"default";r=${remaining};t=${Math.max(0, Math.ceil(resetMs / 1000))}`;
}

/** Calls whose end nobody told. Two at each insertion: as many as come in go out. */
function dropEnded(places: Map<string, Place>, now: number): void {
  for (let i = 0; i < 2; i += 1) {
    const [oldest] = places;
    if (!oldest || now < oldest[1].endsAt) return;
    places.delete(oldest[0]);
  }
}
