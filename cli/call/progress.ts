import { cutTo, plain } from '../table.ts';

/** Gets what a server tells during a call: the params of its notifications. */
export interface Follower {
  progress(params: Record<string, unknown>): void;
  log(params: Record<string, unknown>): void;
  /** Before anything else is written. */
  end(): void;
}

interface Screen {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

const ERASE = '\r\u001b[K';

/** Shows it: in a terminal, progress is one line that is written over and goes at the end. */
export function followProgress(screen: Screen): Follower {
  const width = screen.columns || Number.POSITIVE_INFINITY;
  let isShown = false;
  const erase = () => {
    if (isShown) screen.write(ERASE);
    isShown = false;
  };
  return {
    progress(params) {
      const line = cutTo(plain(describeProgress(params)), width);
      screen.write(screen.isTTY ? `${ERASE}${line}` : `${line}\n`);
      isShown = screen.isTTY === true;
    },
    log({ level, logger, data }) {
      erase();
      const from = typeof logger === 'string' ? `${logger}: ` : '';
      const text = typeof data === 'string' ? data : JSON.stringify(data ?? null);
      screen.write(`${plain(`${String(level ?? 'log')}  ${from}${text}`)}\n`);
    },
    end: erase,
  };
}

function describeProgress({ progress, total, message }: Record<string, unknown>): string {
  const done = Number(progress);
  const all = Number(total);
  const share = all > 0 ? `${Math.floor((done / all) * 100)} %` : String(done);
  return `${share.padStart(5)}${typeof message === 'string' && message !== '' ? `  ${message}` : ''}`;
}
