import { createRequire } from 'node:module';

interface Parser {
  // biome-ignore lint/suspicious/noExplicitAny: what a file has in it is for the test to know.
  parse(name: string, text: string): Promise<any>;
}

/** Not by import: its types would bring those of browsers into the whole program. */
const { parse }: Parser = createRequire(import.meta.url)('@cdktf/hcl2json');

/** Parses HCL 2; rejects with what is wrong, and where. */
export const parseHcl = parse;
