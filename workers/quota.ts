import { MeshError } from '../mesh/errors.ts';
import { type Limits, matchesGlob } from '../mesh/grants.ts';
import { limitKey, type WindowStore } from '../mesh/limit-store.ts';

/** One tool call by one caller. */
interface Call {
  principal: string;
  service: string;
  tool: string;
  /** Of this principal in this service. */
  limits: Limits;
}

/** What a call leaves of the caller's quota. */
export interface QuotaUse {
  /** Units left in the period; a call takes its cost. */
  remaining: number;
  limit: number;
  period: 'day' | 'month';
  /** For the caller, from 80 % used on. */
  warning?: string;
}

export interface Quota {
  /**
   * Counts a call before it goes to the server; each call of a batch is one. Undefined for a caller without a quota.
   * @throws MeshError `rate_limited` or `quota_exceeded`; then nothing was counted
   */
  charge(call: Call): Promise<QuotaUse | undefined>;
  /** Gives back what a call took that was never delivered (a full queue, an open breaker). Never throws. */
  refund(call: Call): Promise<void>;
}

interface QuotaOptions {
  /** Rates per tool. */
  store: WindowStore;
  /** Quotas; must outlast a restart. */
  quotaStore?: WindowStore;
  /** Units that a call of a tool takes; default 1. */
  costs?: Readonly<Record<string, number>>;
  now?: () => number;
}

interface Take {
  store: WindowStore;
  key: string;
  limit: number;
  windowMs: number;
  cost: number;
}

const WARN_FROM = 0.8;
/** A count outlives its period by so much: a worker whose clock is late must not find it gone. */
const GRACE_MS = 3_600_000;

/**
 * Tool calls × cost by the limits in the caller's identity: rates per tool, each pattern of the policy
 * one budget, and quotas per UTC day or month.
 * @throws Error when quotas would be lost with this process
 */
export function createQuota({ store, quotaStore = store, costs = {}, now = Date.now }: QuotaOptions): Quota {
  if (!quotaStore.durable) {
    throw new Error(
      'quotas per day or month need a store that outlasts a restart: set MESH_REDIS_URL or MESH_STATE_DIR',
    );
  }
  const price = new Map(Object.entries(costs));
  const costOf = (tool: string) => price.get(tool) ?? 1;

  return {
    async charge(call) {
      const at = now();
      const taken: Take[] = [];
      try {
        for (const take of toolRates(call, store)) await takeRate(take, call.tool, at, taken);
        return await takeQuota(call, quotaTake(call, quotaStore, costOf(call.tool), at), at);
      } catch (refusal) {
        await Promise.all(taken.map(({ store, key, cost }) => store.refund(key, cost, at)));
        throw refusal;
      }
    },
    async refund(call) {
      const at = now();
      const quota = quotaTake(call, quotaStore, costOf(call.tool), at);
      const takes = [...toolRates(call, store), ...(quota ? [quota] : [])];
      await Promise.all(takes.map(({ store, key, cost }) => store.refund(key, cost, at)));
    },
  };
}

async function takeRate(take: Take, tool: string, now: number, taken: Take[]): Promise<void> {
  const { allowed, resetMs } = await take.store.consume(take.key, { ...take, now });
  if (!allowed) {
    const detail = `${take.limit} calls of "${tool}" in ${take.windowMs / 1000} s are the limit`;
    throw new MeshError('rate_limited', { detail, retryAfterMs: resetMs });
  }
  taken.push(take);
}

async function takeQuota(
  { limits: { quota } }: Call,
  take: Take | undefined,
  now: number,
): Promise<QuotaUse | undefined> {
  if (!quota || !take) return undefined;
  const { calls: limit, period } = quota;
  const { end } = periodOf(period, now);
  const until = new Date(end).toISOString();
  const { allowed, remaining } = await take.store.consume(take.key, { ...take, now });
  if (!allowed) {
    const detail = `of ${limit} calls a ${period} ${remaining} are left, this one counts ${take.cost}; the next ${period} begins at ${until}`;
    throw new MeshError('quota_exceeded', { detail, retryAfterMs: end - now });
  }
  const use = { remaining, limit, period };
  if (limit - remaining < limit * WARN_FROM) return use;
  const percent = Math.floor(((limit - remaining) / limit) * 100);
  return {
    ...use,
    warning: `${percent} % of the quota is used: ${remaining} of ${limit} calls are left until ${until}`,
  };
}

/** By pattern and not by tool: a caller could otherwise open a window with every name he invents. */
function toolRates({ principal, service, tool, limits }: Call, store: WindowStore): Take[] {
  return (limits.toolRates ?? [])
    .filter(({ pattern }) => matchesGlob(pattern, tool))
    .map(({ pattern, calls, windowS }) => ({
      store,
      key: limitKey('tool', windowS, pattern, service, principal),
      limit: calls,
      windowMs: windowS * 1000,
      cost: 1,
    }));
}

function quotaTake(
  { principal, service, limits: { quota } }: Call,
  store: WindowStore,
  cost: number,
  now: number,
): Take | undefined {
  if (!quota) return undefined;
  const { name, end } = periodOf(quota.period, now);
  const key = limitKey('quota', name, service, principal);
  return { store, key, limit: quota.calls, windowMs: end - now + GRACE_MS, cost };
}

/** The UTC day or month of a time: its name in ISO 8601, and when the next one begins. */
function periodOf(period: 'day' | 'month', now: number): { name: string; end: number } {
  const date = new Date(now);
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
  return period === 'day'
    ? { name: date.toISOString().slice(0, 10), end: Date.UTC(year, month, day + 1) }
    : { name: date.toISOString().slice(0, 7), end: Date.UTC(year, month + 1, 1) };
}
