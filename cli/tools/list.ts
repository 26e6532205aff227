import { isObject } from '../../mesh/jsonrpc.ts';
import { readJson } from '../../mesh/read-json.ts';
import { suggestion } from '../../mesh/suggestion.ts';
import type { Tool } from '../call/arguments.ts';
import { CommandError } from '../command.ts';
import { type Gateway, readText } from '../gateway.ts';

/** A cursor that leads nowhere new must not be followed for ever. */
const PAGES_MAX = 1000;

/** The tools of a service that the caller may use, as the server tells of them. @throws CommandError */
export async function listTools(
  gateway: Gateway,
  service: string,
  signal?: AbortSignal,
): Promise<Record<string, unknown>[]> {
  const tools: Record<string, unknown>[] = [];
  let query = '';
  for (let page = 0; page < PAGES_MAX; page += 1) {
    const reply = await gateway.send(`/${encodeURIComponent(service)}/tools${query}`, {
      ...(signal && { signal }),
    });
    const value = readJson(await readText(reply));
    if (!isObject(value) || !Array.isArray(value.tools))
      throw new CommandError(`the answer of ${service} is no list of tools`);
    tools.push(...value.tools.filter(isObject));
    if (typeof value.nextCursor !== 'string') return tools;
    query = `?${new URLSearchParams({ cursor: value.nextCursor })}`;
  }
  return tools;
}

/** The tool of that name. @throws CommandError with the nearest one when there is none */
export function findTool(
  tools: readonly Record<string, unknown>[],
  service: string,
  name: string,
): Record<string, unknown> {
  const found = tools.find(tool => tool.name === name);
  if (found) return found;
  const names = tools.map(tool => String(tool.name));
  const hints = [names.length === 0 ? 'you may use none of it' : `there are: ${names.join(', ')}`];
  const facts = { code: 'unknown_tool' };
  throw new CommandError(`${service} has no tool "${name}"${suggestion(name, names)}`, { facts, hints });
}

/** What the command line needs of a tool. */
export function readTool({ name, description, inputSchema }: Record<string, unknown>): Tool {
  return {
    name: String(name),
    description: typeof description === 'string' ? description : '',
    inputSchema: isObject(inputSchema) ? inputSchema : {},
  };
}
