import type { Service } from '../mesh/registry.ts';

interface Run {
  calls: number;
  ageMs: number;
  rssBytes: number;
}

const MB = 1024 * 1024;
/** A server that begins beyond max_rss_mb would otherwise be replaced for ever, each time as soon as it is up. */
const SETTLED_MS = 60_000;
/** Instances that were started together would otherwise all be replaced in the same second. */
const AGE_JITTER = 0.1;

/**
 * When a server that works is replaced by a fresh one (`recycle` in the registry). For servers that their callers
 * share; one of a session holds that session's state, and ends with it.
 */
export class Recycling {
  readonly #rules: Service['recycle'];
  readonly #share: number;

  constructor(rules: Service['recycle'], random = Math.random) {
    this.#rules = rules;
    this.#share = 1 - AGE_JITTER * random();
  }

  /** Whether a rule needs a look at the clock or the memory now and then. */
  get needsLooks(): boolean {
    return this.#rules.max_age_s > 0 || this.#rules.max_rss_mb > 0;
  }

  /** Why the run is to be replaced, in words; undefined: it may go on. */
  reason({ calls, ageMs, rssBytes }: Run): string | undefined {
    const { max_calls, max_age_s, max_rss_mb } = this.#rules;
    if (max_calls > 0 && calls >= max_calls) return `${calls} calls (recycle.max_calls)`;
    if (max_age_s > 0 && ageMs >= max_age_s * 1000 * this.#share) {
      return `${Math.round(ageMs / 1000)} s old (recycle.max_age_s)`;
    }
    if (max_rss_mb > 0 && ageMs >= SETTLED_MS && rssBytes > max_rss_mb * MB) {
      return `${Math.ceil(rssBytes / MB)} MB (recycle.max_rss_mb ${max_rss_mb})`;
    }
    return undefined;
  }
}
