/** A time-out that can be held: waiting for a person is not the server's slowness. */
export function createClock(ms: number, onExpired: () => void) {
  let left = ms;
  let since = performance.now();
  let holds = 0;
  let stopped = false;
  let timer = setTimeout(onExpired, left);
  return {
    stop() {
      stopped = true;
      clearTimeout(timer);
    },
    hold() {
      holds += 1;
      if (holds === 1) {
        clearTimeout(timer);
        left -= performance.now() - since;
      }
      return () => {
        holds -= 1;
        if (holds > 0 || stopped) return;
        since = performance.now();
        timer = setTimeout(onExpired, Math.max(0, left));
      };
    },
  };
}
