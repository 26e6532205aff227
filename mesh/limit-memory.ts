import { BoundedCache } from './bounded-cache.ts';
import type { Consumed, LeaseTerms, WindowUse } from './limit-store.ts';

interface Window {
  used: number;
  resetAt: number;
}

interface Lease {
  id: string;
  from: number;
  ttlMs: number;
}

export interface LimitMemory {
  consume(key: string, use: WindowUse): Consumed;
  refund(key: string, cost: number, now: number): void;
  /** Takes over what another store said of the window. */
  note(key: string, use: WindowUse, said: Consumed): void;
  hold(key: string, id: string, terms: LeaseTerms): boolean;
  release(key: string, id: string): void;
}

/** Of each kind; the half used last is certain to stay: 100,000 pairs of principal and service. */
const MAX_WINDOWS = 200_000;
/** A longer window is a quota: to forget it would give a day or a month again. */
const QUOTA_MS = 3_600_000;

/**
 * Fixed windows and leases in plain maps. Not the library's memory store: it sets a timer for each key, which takes
 * 530 bytes and overflows beyond 24.8 days. What was not used for longest is forgotten when there is too much, rates
 * and quotas apart, so that no flood of rates touches a quota (whose durable count is elsewhere: workers/quota.ts).
 */
export function createLimitMemory({ maxWindows = MAX_WINDOWS } = {}): LimitMemory {
  const rates = new BoundedCache<string, Window>(maxWindows);
  const quotas = new BoundedCache<string, Window>(maxWindows);
  const leases = new BoundedCache<string, Lease[]>(maxWindows);
  const kind = (windowMs: number) => (windowMs > QUOTA_MS ? quotas : rates);

  const opened = (key: string, { windowMs, now }: WindowUse): Window | undefined => {
    const window = kind(windowMs).get(key);
    if (!window || now >= window.resetAt) return undefined;
    // A clock that was set back must not make the window longer than a window.
    window.resetAt = Math.min(window.resetAt, now + windowMs);
    return window;
  };

  return {
    consume(key, use) {
      const { limit, windowMs, cost, now } = use;
      const window = opened(key, use);
      const used = window?.used ?? 0;
      const resetMs = window ? window.resetAt - now : windowMs;
      if (used + cost > limit) return { allowed: false, remaining: Math.max(0, limit - used), resetMs };
      if (window) window.used += cost;
      else kind(windowMs).set(key, { used: cost, resetAt: now + windowMs });
      return { allowed: true, remaining: limit - used - cost, resetMs };
    },
    refund(key, cost, now) {
      const window = rates.get(key) ?? quotas.get(key);
      if (window && now < window.resetAt) window.used = Math.max(0, window.used - cost);
    },
    note(key, { limit, windowMs, now }, { remaining, resetMs }) {
      const window = kind(windowMs).get(key);
      if (window) Object.assign(window, { used: limit - remaining, resetAt: now + resetMs });
      else kind(windowMs).set(key, { used: limit - remaining, resetAt: now + resetMs });
    },
    hold(key, id, { limit, ttlMs, now }) {
      const held = (leases.get(key) ?? []).filter(lease => now < lease.from + lease.ttlMs);
      // A clock that was set back must not make a lease longer.
      for (const lease of held) lease.from = Math.min(lease.from, now);
      const free = held.length < limit;
      // Neither push nor spread, which make room for 17.
      leases.set(key, free ? held.concat({ id, from: now, ttlMs }) : held);
      return free;
    },
    release(key, id) {
      const held = (leases.get(key) ?? []).filter(lease => lease.id !== id);
      if (held.length > 0) leases.set(key, held);
      else leases.delete(key);
    },
  };
}
