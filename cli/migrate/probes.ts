import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { readJson } from '../../mesh/read-json.ts';
import { UsageError } from '../command.ts';
import { type Change, changesBetween, type Difference } from './differences.ts';
import type { Answer, Side } from './side.ts';

/** A call whose answers are compared. */
export interface Probe {
  tool: string;
  args: JsonObject;
  /** Asked for, or taken from the tool's own hints. */
  from: 'option' | 'hints';
}

export interface ProbeResult extends Probe {
  differences: Difference[];
  /** Where two runs of the old way differ from each other, as JSON pointers: nothing can be said there. */
  volatile: string[];
}

const HINTED_MAX = 20;

/** @throws UsageError when a text is not `tool={…}` */
export function readProbes(texts: readonly string[]): Probe[] {
  return texts.map(text => {
    const cut = text.indexOf('=');
    const tool = cut < 0 ? text : text.slice(0, cut);
    const json = cut < 0 ? '{}' : text.slice(cut + 1);
    const args = readJson(json);
    if (tool !== '' && isObject(args)) return { tool, args, from: 'option' };
    throw new UsageError(`--probe: "${text}" is not of the form tool={"argument": value}`);
  });
}

/** Calls of tools that say of themselves that they only read, where the arguments are plain from their schemas. */
export function hintedProbes(tools: readonly JsonObject[], chosen: readonly Probe[]): Probe[] {
  const taken = new Set(chosen.map(({ tool }) => tool));
  return tools
    .filter(
      ({ name, annotations }) =>
        isObject(annotations) && annotations.readOnlyHint === true && !taken.has(String(name)),
    )
    .flatMap(({ name, inputSchema }): Probe[] => {
      const args = exampleArguments(inputSchema);
      return args ? [{ tool: String(name), args, from: 'hints' }] : [];
    })
    .slice(0, HINTED_MAX);
}

/** Asks the old way twice and the new way once. @throws MeshError when one of them does not answer in time */
export async function runProbe(probe: Probe, old: Side, next: Side): Promise<ProbeResult> {
  const params = { name: probe.tool, arguments: probe.args };
  const first = shownOf(await old.ask('tools/call', params));
  const other = shownOf(await next.ask('tools/call', params));
  const second = shownOf(await old.ask('tools/call', params));
  const unsteady = changesBetween(first, second);
  const differences = changesBetween(first, other)
    .filter(change => !isExcused(change, unsteady))
    .map(change => ({ kind: 'answer', name: probe.tool, ...change }));
  return { ...probe, differences, volatile: unsteady.map(({ path }) => path) };
}

function exampleArguments(schema: unknown): JsonObject | undefined {
  const { required = [], properties = {} } = isObject(schema) ? schema : {};
  if (!Array.isArray(required) || !isObject(properties)) return undefined;
  const args: JsonObject = {};
  for (const key of required.map(String)) {
    const property = Object.hasOwn(properties, key) ? properties[key] : undefined;
    const value = isObject(property) ? exampleOf(property) : undefined;
    if (value === undefined) return undefined;
    args[key] = value;
  }
  return args;
}

function exampleOf({ examples, default: fallback, const: only }: JsonObject): unknown {
  const [example] = Array.isArray(examples) ? examples : [];
  return example ?? fallback ?? only;
}

/** The answer as far as it is the server's: `_meta` has what belongs to the transport and the run. */
function shownOf({ result, error }: Answer): unknown {
  if (error) return { error: { code: error.code, message: error.message } };
  const { _meta, ...rest } = isObject(result) ? result : { value: result };
  return { result: unfold(rest) };
}

/** Texts that hold JSON become what they hold: else one time of day in it would make all of it volatile. */
function unfold(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(unfold);
  if (isObject(value))
    return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unfold(item)]));
  const json = typeof value === 'string' && /^\s*[[{]/.test(value) ? readJson(value) : undefined;
  return json === undefined ? value : unfold(json);
}

/** Whether the two runs of the old way differ at the same place, and the new one nowhere else. */
function isExcused(change: Change, unsteady: readonly Change[]): boolean {
  return unsteady.some(({ path, old, new: second }) => {
    if (change.path.startsWith(`${path}/`)) return true;
    return change.path === path && matchesElsewhere(change.new, old, second);
  });
}

/** Of texts with equally many words, those words count that were the same in both runs. */
function matchesElsewhere(text: unknown, first: unknown, second: unknown): boolean {
  if (typeof text !== 'string' || typeof first !== 'string' || typeof second !== 'string') return true;
  const [words, one, two] = [text, first, second].map(part => part.split(/\s+/)) as [
    string[],
    string[],
    string[],
  ];
  if (one.length !== two.length) return true;
  return words.length === one.length && one.every((word, i) => word !== two[i] || word === words[i]);
}
