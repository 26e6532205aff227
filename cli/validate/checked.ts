/** What was found in one file; faults and warnings are `file:line: field: what`. */
export interface Checked<Summary> {
  faults: string[];
  warnings: string[];
  /** undefined: the file cannot be used. */
  summary: Summary | undefined;
}
