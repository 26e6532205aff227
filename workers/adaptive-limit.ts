/**
 * How many calls a server really works on at once, found out by trying: what it would only keep waiting inside, in the
 * order it came, waits better in our own queue, which is fair.
 */
export interface AdaptiveLimit {
  /** Calls inside beyond which only a caller with none there goes in; Infinity while no bound is known to be harmless. */
  readonly value: number;
  /** A call has ended. */
  ended(call: EndedCall): void;
}

export interface EndedCall {
  principal: string;
  /** Its time inside. */
  ms: number;
  /** How many counted by the limit when it went in, itself included. */
  crowd: number;
  /** Whether calls wait now. */
  pressed: boolean;
}

interface AdaptiveLimitOptions {
  /** From here on there is no limit. */
  max: number;
  /** Milliseconds. */
  now(): number;
}

/** Two limits compared; what holds is the smaller one if calls are so much shorter there that none is lost. */
interface Trial {
  from: number;
  to: number;
  /** What holds when it fails. */
  fallback: number;
  before: Times;
  after: Times;
  startedAt: number;
  /** When the last call came that it could use. */
  heardAt: number;
}

/** By caller: like is compared with like, whoever calls what. Logarithms, so that one slow call does not decide. */
type Times = Map<string, Sample>;

interface Sample {
  count: number;
  mean: number;
  /** Sum of the squared distances to the mean. */
  spread: number;
}

/** A call that counts for a limit went in when at least this share of it was used. */
const USED = 0.75;
/** Half as many inside take half the time each in a server that is full, and the same in one that is not. */
const SHORTER = Math.log(1.5);
/** Calls to judge by: as few as show it beyond doubt, and then as many as there are. */
const CALLS_MIN = 12;
const CALLS_MAX = 96;
/** Standard errors that are beyond doubt. */
const SURE = 2.5;
/** Standard error, of a logarithm, that is good enough to go on with. */
const PRECISE = 0.1;
/** Pause after a trial, in times of its own length: trials take two percent of the time at most. */
const PAUSE = 50;
/** But less while the limit is new: a machine that is slow for a moment makes a trial come out wrong. */
const PAUSE_FIRST = 5;
const PAUSE_MS = 1000;
/** A trial that hears nothing it can use is over. */
const QUIET_MS = 60_000;
/** How long after two callers were there the limit holds: it would delay one alone, and protect nobody. */
const SHARED_MS = 600_000;
const CALLERS_MAX = 64;

/**
 * Halves the limit while that makes calls shorter in proportion, which costs no throughput (Little's law), and tries
 * from time to time whether twice as many go. Compared to the shortest time ever seen (TCP Vegas, Envoy's gradient
 * controller) this needs no idle server to learn from, and is not misled by tools that take long by nature.
 */
export function createAdaptiveLimit({ max, now }: AdaptiveLimitOptions): AdaptiveLimit {
  let limit = Number.POSITIVE_INFINITY;
  let trial: Trial | undefined;
  const down = { nextAt: 0, failures: 0 };
  const up = { nextAt: 0, failures: 0 };
  let lastCaller: string | undefined;
  let sharedUntil = 0;

  const settle = (done: Trial, worked: boolean, at: number) => {
    const lower = done.to < done.from;
    const [tried, other] = lower ? [down, up] : [up, down];
    trial = undefined;
    limit = worked ? done.to : done.fallback;
    if (limit >= max) limit = Number.POSITIVE_INFINITY;
    if (worked) other.failures = 0;
    else tried.failures += 1;
    for (const each of [tried, other]) {
      const factor = Math.min(PAUSE, PAUSE_FIRST * 2 ** each.failures);
      each.nextAt = at + Math.max(PAUSE_MS, factor * (at - done.startedAt));
    }
    if (!worked || limit === 1 || limit >= max) return;
    // What the new limit showed is what the next one is compared with.
    trial = next(limit, lower, limit, at);
    trial.before = done.after;
  };
  const begin = ({ crowd, pressed }: EndedCall, at: number): Trial | undefined => {
    if (crowd > 1 && limit > 1 && at >= down.nextAt) return next(Math.min(limit, crowd), true, limit, at);
    if (pressed && limit < max && at >= up.nextAt) return next(limit, false, limit, at);
    return undefined;
  };

  return {
    get value() {
      if (now() >= sharedUntil) return Number.POSITIVE_INFINITY;
      return trial && isMeasured(trial) ? trial.to : limit;
    },
    ended(call) {
      const at = now();
      if (lastCaller !== undefined && lastCaller !== call.principal) sharedUntil = at + SHARED_MS;
      lastCaller = call.principal;
      if (at >= sharedUntil) trial = undefined;
      else if (isOutgrown(trial, call)) trial = begin(call, at);
      if (!trial) return;
      const times = isMeasured(trial) ? trial.after : trial.before;
      if (isUsed(times === trial.after ? trial.to : trial.from, call.crowd)) {
        add(times, call);
        trial.heardAt = at;
      }
      const verdict = judge(trial);
      if (verdict !== undefined) settle(trial, verdict, at);
      else if (at - trial.heardAt > QUIET_MS) settle(trial, false, at);
    },
  };
}

function next(from: number, lower: boolean, fallback: number, at: number): Trial {
  const to = lower ? Math.ceil(from / 2) : from * 2;
  return { from, to, fallback, before: new Map(), after: new Map(), startedAt: at, heardAt: at };
}

/** While the old limit is measured, it is known from below: from what went in so far. */
function isOutgrown(trial: Trial | undefined, { crowd }: EndedCall): boolean {
  return trial === undefined || (!isMeasured(trial) && trial.to < trial.from && crowd > trial.from);
}

function isUsed(level: number, crowd: number): boolean {
  return crowd <= level && crowd >= level * USED;
}

/** The times at the old limit are known: the new one holds. */
function isMeasured({ before }: Trial): boolean {
  const count = countOf(before);
  if (count < CALLS_MIN) return false;
  if (count >= CALLS_MAX) return true;
  const error = before.values().reduce((sum, sample) => sum + sample.count ** 2 * varianceOf(sample), 0);
  return Math.sqrt(error) / count <= PRECISE;
}

function countOf(times: Times): number {
  return times.values().reduce((sum, { count }) => sum + count, 0);
}

/** Welford's running mean and variance. */
function add(times: Times, { principal, ms }: EndedCall): void {
  const known = times.get(principal);
  if (!known && times.size >= CALLERS_MAX) return;
  const { count, mean, spread } = known ?? { count: 0, mean: 0, spread: 0 };
  const value = Math.log(Math.max(ms, 0.01));
  const newMean = mean + (value - mean) / (count + 1);
  times.set(principal, {
    count: count + 1,
    mean: newMean,
    spread: spread + (value - mean) * (value - newMean),
  });
}

/** Of the mean. */
function varianceOf({ count, spread }: Sample): number {
  return count < 2 ? 1 : spread / (count - 1) / count;
}

/** Whether the new limit is to stay; undefined while that cannot be said. */
function judge({ from, to, before, after }: Trial): boolean | undefined {
  let weights = 0;
  let difference = 0;
  let variance = 0;
  for (const [principal, sample] of after) {
    const old = before.get(principal);
    if (!old) continue;
    const weight = Math.min(sample.count, old.count);
    weights += weight;
    difference += weight * (old.mean - sample.mean);
    variance += weight ** 2 * (varianceOf(old) + varianceOf(sample));
  }
  const ended = countOf(after) >= CALLS_MAX;
  // Other callers than before say nothing.
  if (weights < CALLS_MIN / 2) return ended ? false : undefined;
  const lower = to < from;
  const shorter = (lower ? difference : -difference) / weights;
  const sure = Math.abs(shorter - SHORTER) > (SURE * Math.sqrt(variance)) / weights;
  if (!ended && (!sure || countOf(after) < CALLS_MIN)) return undefined;
  return lower === shorter >= SHORTER;
}
