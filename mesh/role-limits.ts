import type { Role } from './access-policy.ts';
import { matchesGlob } from './glob.ts';

/** Bounds on what a principal may use of a service; what is left out has no bound. */
export interface Limits {
  /** HTTP requests per window of seconds. */
  rate?: { requests: number; windowS: number };
  /** Requests at once. */
  inFlight?: number;
  /** Tool calls, times their cost, per UTC day or month. */
  quota?: { calls: number; period: 'day' | 'month' };
  /** Calls per window of seconds, by glob of tools; every pattern that matches a tool holds for it. */
  toolRates?: ToolRate[];
}

interface ToolRate {
  pattern: string;
  calls: number;
  windowS: number;
}

/** Whether calls of tools are counted for who has these limits, and not only HTTP requests. */
export function countsTools({ quota, toolRates }: Limits): boolean {
  return quota !== undefined || toolRates !== undefined;
}

const PERIOD_DAYS = { day: 1, month: 30 };

/** The most generous limits of several roles: a role without a limit lifts it. */
export function limitsOf(roles: readonly Role[]): Limits {
  const rate = mostGenerous(
    roles.map(role => role.rateLimit),
    ({ requests, windowS }) => [requests / windowS, requests],
  );
  const inFlight = mostGenerous(
    roles.map(role => role.inFlight),
    calls => [calls],
  );
  const quota = mostGenerous(
    roles.map(role => role.quota),
    ({ calls, period }) => [calls / PERIOD_DAYS[period], calls],
  );
  const toolRates = combineToolRates(roles.map(role => role.toolRates));
  return {
    ...(rate && { rate }),
    ...(inFlight && { inFlight }),
    ...(quota && { quota }),
    ...(toolRates.length > 0 && { toolRates }),
  };
}

/** The limit with the greatest measure, compared number by number; undefined when one of them is undefined. */
function mostGenerous<T>(limits: readonly (T | undefined)[], measure: (limit: T) => number[]): T | undefined {
  const set = limits.filter(limit => limit !== undefined);
  if (set.length < limits.length) return undefined;
  return set.toSorted((a, b) => compare(measure(b), measure(a)))[0];
}

function compare(a: number[], b: number[]): number {
  const at = a.findIndex((value, i) => value !== b[i]);
  return at < 0 ? 0 : (a[at] ?? 0) - (b[at] ?? 0);
}

/** A tool is bounded when every role bounds it. Within a role the strictest pattern holds, between roles the kindest. */
function combineToolRates(lists: readonly ToolRate[][]): ToolRate[] {
  const [only, ...others] = lists;
  if (others.length === 0) return only ?? [];
  const measure = ({ calls, windowS }: ToolRate) => [calls / windowS, calls];
  const patterns = new Set(lists.flat().map(({ pattern }) => pattern));
  return [...patterns].flatMap(pattern => {
    const bounds = lists.map(
      list =>
        list
          // A glob that matches another glob's text, star for star, matches all that the other one matches.
          .filter(rate => matchesGlob(rate.pattern, pattern))
          .toSorted((a, b) => compare(measure(a), measure(b)))[0],
    );
    const kindest = mostGenerous(bounds, measure);
    return kindest ? [{ ...kindest, pattern }] : [];
  });
}
