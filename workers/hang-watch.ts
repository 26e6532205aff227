import { InFlight } from './in-flight.ts';

/**
 * THE RULE that tells a busy server from a hung one.
 *
 * 1. A server that says anything at all (an answer, progress, a log, noise) lives. Nothing is sent to one that talks,
 *    or that owes no answer.
 * 2. When it owes an answer and has said nothing for `quietMs`, it is pinged once. Any line, an error too, settles it.
 * 3. It is hung when it has still said nothing `answerMs` after the ping AND after every call that it had got before
 *    the ping has used up the longest time that the registry allows it. A server that runs one tool at a time cannot
 *    answer a ping meanwhile, and may take that long; what came after the ping cannot be what keeps it from answering.
 *    Calls whose callers have gone count, too: the server may still be at work on them.
 * 4. While it waits for an answer of ours (elicitation, sampling), its silence is ours, and time stands still.
 *
 * Time is counted in ticks that were lived through: a worker that was itself stopped (SIGSTOP, a laptop's lid) does not
 * blame the server for what it did not read.
 */
export interface HangWatch {
  /** A call goes to the server; the function returned says that its answer is there. */
  began(allowedMs: number): (answered: boolean) => void;
  /** The server said something. */
  heard(): void;
  stop(): void;
}

export interface HangTimes {
  quietMs: number;
  answerMs: number;
}

interface HangWatchOptions {
  times?: HangTimes | undefined;
  ping(): void;
  /** Whether the server waits for an answer of ours. */
  isAsking(): boolean;
  /** Called once. */
  onHung(reason: string): void;
}

const DEFAULT_TIMES: HangTimes = { quietMs: 30_000, answerMs: 30_000 };
const TICKS = 20;

export function createHangWatch({
  times = DEFAULT_TIMES,
  ping,
  isAsking,
  onHung,
}: HangWatchOptions): HangWatch {
  const { quietMs, answerMs } = times;
  const tickMs = Math.ceil(Math.min(quietMs, answerMs) / TICKS);
  /** Calls without an answer; given-up ones until the server is heard. */
  const owed = new InFlight<number, { id: number; until: number; givenUp: boolean }>();
  let calls = 0;
  let lived = 0;
  let talked = false;
  let quietSince = 0;
  let pinged: { at: number; verdictAt: number } | undefined;

  const restart = () => {
    quietSince = lived;
    pinged = undefined;
  };
  const forgive = () => {
    for (const { id, givenUp } of owed.values()) if (givenUp) owed.delete(id);
  };
  const tick = () => {
    lived += tickMs;
    if (talked || owed.size === 0 || isAsking()) {
      talked = false;
      restart();
      forgive();
    } else if (!pinged && lived - quietSince >= quietMs) {
      const verdictAt = Math.max(lived + answerMs, ...owed.values().map(({ until }) => until));
      pinged = { at: lived, verdictAt };
      ping();
    } else if (pinged && lived >= pinged.verdictAt) {
      clearInterval(timer);
      const silent = Math.round((lived - quietSince) / 1000);
      onHung(`is hung (silent for ${silent} s, and no answer to a ping)`);
    }
  };
  const timer = setInterval(tick, tickMs).unref();

  return {
    began(allowedMs) {
      calls += 1;
      const call = { id: calls, until: lived + allowedMs, givenUp: false };
      if (owed.size === 0) restart();
      owed.set(call.id, call);
      return answered => {
        if (answered) owed.delete(call.id);
        else call.givenUp = true;
      };
    },
    heard() {
      talked = true;
    },
    stop: () => clearInterval(timer),
  };
}
