/** What commands print: on stdout what was asked for, for people or for programs; on stderr what helps people. */

/** Prints the answer: with `--json` the value as one document, else the text, which ends with a line end or is empty. */
export function answer(json: boolean | undefined, value: unknown, text: string): void {
  process.stdout.write(json ? `${JSON.stringify(value, null, 2)}\n` : text);
}

/** To stderr: stdout has what a script wants to read. */
export function tell(text: string): void {
  process.stderr.write(`mesh: ${text}\n`);
}
