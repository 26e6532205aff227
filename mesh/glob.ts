const STAR = 42;

/**
 * Whether the whole text matches the pattern: `*` stands for any run of characters, all else for itself, letter for
 * letter. Only the last star is ever tried again, so a text costs at most its length times the pattern's: patterns are
 * ours, texts are the caller's.
 */
export function matchesGlob(pattern: string, text: string): boolean {
  let p = 0;
  let t = 0;
  /** Where to go on when the text stops to match: behind the last star, one character further. */
  let retryP = -1;
  let retryT = 0;
  while (t < text.length) {
    const wanted = pattern.charCodeAt(p);
    if (wanted === STAR) {
      p += 1;
      if (p === pattern.length) return true;
      retryP = p;
      retryT = t;
    } else if (wanted === text.charCodeAt(t)) {
      p += 1;
      t += 1;
    } else if (retryP >= 0) {
      retryT += 1;
      p = retryP;
      t = retryT;
    } else {
      return false;
    }
  }
  while (pattern.charCodeAt(p) === STAR) p += 1;
  return p === pattern.length;
}
