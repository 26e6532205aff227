/**
 * Why a server is not up, without its own last words ("child exits with 3: cannot open the database"): those are for
 * operators, and may hold what a caller must not see.
 */
export function shortReason(reason: string): string {
  return reason.split(': ', 1)[0] ?? reason;
}
