import type { ErrorObject, ValidateFunction } from 'ajv';
import type { Logger } from 'pino';
import { BoundedCache } from '../../mesh/bounded-cache.ts';
import { MeshError } from '../../mesh/errors.ts';
import type { JsonObject, RpcRequest } from '../../mesh/jsonrpc.ts';
import { loadSchemaCompiler, type SchemaCompiler } from './compiler.ts';
import { runWithin } from './deadline.ts';
import { toFaults } from './faults.ts';

interface ArgumentChecksOptions {
  log: Pick<Logger, 'warn'>;
  /** A tool's inputSchema: the same object until the server lists its tools anew. */
  schemaOf(upstream: object, tool: string): Promise<JsonObject | undefined>;
  /** Longest time to check one call by one schema, in ms. */
  checkMs?: number;
}

/** How arguments are checked by one schema. */
interface Check {
  first: ValidateFunction;
  /** Compiled when there is something to find. */
  all?: ValidateFunction;
  /** Whether a value of any length is looked at in time that grows with its length and no faster. */
  linear: boolean;
  /** By performance.now(): until then calls pass unchecked. */
  offUntil: number;
}

const COMPILE_MS = 1000;
const CHECK_MS = 250;
/** How long a schema that took too long is left alone: it may take that much of the worker's time once a minute. */
const OFF_MS = 60_000;
/** Characters of JSON. Ajv's code for a schema is some ten times as large. */
const SCHEMA_MAX = 256 * 1024;
const SCHEMAS_MAX = 4 * 1024 * 1024;
/** Characters of a request: in a longer one only the first fault is looked for. */
const SHORT = 8 * 1024;
/** Keywords that may take time out of all proportion: backtracking, items compared in pairs, branching recursion. */
const COSTLY = /"(?:pattern|patternProperties|format|uniqueItems|\$(?:dynamic|recursive)?[rR]ef)":/;

/**
 * Checks the arguments of calls against the tools' own schemas. What cannot be checked (a schema that is none, that
 * refers to elsewhere, or takes too long) passes: the server looks at its arguments, too.
 */
export class ArgumentChecks {
  readonly #options: ArgumentChecksOptions;
  /** By schema; undefined for one that cannot be used. Those of a list that was replaced fall out with time. */
  readonly #checks = new BoundedCache<JsonObject, { check: Check | undefined }>(SCHEMAS_MAX);
  #compiler: Promise<SchemaCompiler> | undefined;

  constructor(options: ArgumentChecksOptions) {
    this.#options = options;
  }

  /** @throws MeshError `invalid_arguments` with its `errors` */
  async check(upstream: object, request: RpcRequest): Promise<void> {
    const { name, arguments: value = {} } = request.params;
    if (request.method !== 'tools/call' || typeof name !== 'string') return;
    const schema = await this.#options.schemaOf(upstream, name);
    if (!schema) return;
    this.#compiler ??= loadSchemaCompiler();
    const compiler = await this.#compiler;
    const check = this.#checkOf(schema, name, compiler);
    if (!check || performance.now() < check.offUntil) return;
    const short = request.text.length <= SHORT;
    const look = () => faultsOf(check, value, short && (() => compiler.compile(schema, true)));
    const errors = this.#look(check, name, short && check.linear ? look : within(this.#checkMs, look));
    if (errors.length > 0) throw invalid(errors);
  }

  get #checkMs(): number {
    return this.#options.checkMs ?? CHECK_MS;
  }

  #checkOf(schema: JsonObject, tool: string, compiler: SchemaCompiler): Check | undefined {
    const known = this.#checks.get(schema);
    if (known) return known.check;
    const text = JSON.stringify(schema);
    const check = this.#compile(schema, text, tool, compiler);
    // One that is too large weighs nothing: it was not compiled.
    this.#checks.set(schema, { check }, check ? text.length : 1);
    return check;
  }

  #compile(schema: JsonObject, text: string, tool: string, compiler: SchemaCompiler): Check | undefined {
    try {
      if (text.length > SCHEMA_MAX) throw new Error(`the schema has more than ${SCHEMA_MAX} characters`);
      const first = runWithin(COMPILE_MS, () => compiler.compile(schema, false));
      return { first, linear: !COSTLY.test(text), offUntil: 0 };
    } catch (fault) {
      this.#warn(tool, fault, 'the inputSchema of a tool cannot be used: its calls pass unchecked');
      return undefined;
    }
  }

  #look(check: Check, tool: string, look: () => readonly ErrorObject[]): readonly ErrorObject[] {
    try {
      return look();
    } catch (fault) {
      check.offUntil = performance.now() + OFF_MS;
      this.#warn(tool, fault, 'a call could not be checked: calls of this tool pass unchecked for a minute');
      return [];
    }
  }

  #warn(tool: string, fault: unknown, text: string): void {
    const reason = fault instanceof Error ? fault.message : String(fault);
    this.#options.log.warn({ tool: tool.slice(0, 128), reason: reason.slice(0, 500) }, text);
  }
}

/** All faults where they can be looked for, else the first. */
function faultsOf(
  check: Check,
  value: unknown,
  compileAll: false | (() => ValidateFunction),
): readonly ErrorObject[] {
  if (check.first(value)) return [];
  const first = check.first.errors ?? [];
  if (!compileAll) return first;
  check.all ??= compileAll();
  check.all(value);
  return check.all.errors ?? first;
}

function within<T>(ms: number, run: () => T): () => T {
  return () => runWithin(ms, run);
}

function invalid(found: readonly ErrorObject[]): MeshError {
  const errors = toFaults(found);
  const shown = errors.slice(0, 3).map(({ pointer, detail }) => `${pointer || 'the value'} ${detail}`);
  const more = found.length > shown.length ? `, and ${found.length - shown.length} more` : '';
  return new MeshError('invalid_arguments', { detail: `${shown.join('; ')}${more}`, errors });
}
