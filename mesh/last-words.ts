const MARK = '; last words: ';

/** Why a server is not up, with the last line that it wrote to stderr. */
export function withLastWords(reason: string, line: string | undefined): string {
  return line === undefined ? reason : `${reason}${MARK}${line}`;
}

/** The same without: a server's own words are for operators, and may hold what a caller must not see. */
export function withoutLastWords(reason: string): string {
  return reason.split(MARK, 1)[0] ?? reason;
}
