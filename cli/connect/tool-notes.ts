import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';

/** An argument that a client mirrors in a header `Mcp-Param-<name>` (2026-07-28, custom parameter headers). */
interface Mirrored {
  name: string;
  /** Keys from the arguments down to the value. */
  path: readonly string[];
}

interface ToolNote {
  mirrored: readonly Mirrored[];
  isRepeatable: boolean;
}

const TOOLS_MAX = 10_000;
const DEPTH_MAX = 20;
const HEADER_NAME = /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/;
const NONE: ToolNote = { mirrored: [], isRepeatable: false };

/** What a bridge needs to know of tools, from the lists that pass through it. */
export class ToolNotes {
  readonly #tools = new Map<string, ToolNote>();

  /** Reads a page of `tools/list`. */
  learn(result: unknown): void {
    const tools = isObject(result) && Array.isArray(result.tools) ? result.tools : [];
    for (const tool of tools.filter(isObject)) {
      if (this.#tools.size >= TOOLS_MAX) this.#tools.clear();
      const { annotations } = tool;
      const says = (hint: string) => isObject(annotations) && annotations[hint] === true;
      this.#tools.set(String(tool.name), {
        mirrored: isObject(tool.inputSchema) ? mirroredIn(tool.inputSchema) : [],
        isRepeatable: says('readOnlyHint') || says('idempotentHint'),
      });
    }
  }

  of(tool: unknown): ToolNote {
    return this.#tools.get(String(tool)) ?? NONE;
  }
}

/** `x-mcp-header` is reached by `properties` alone (2026-07-28, validity). */
function mirroredIn(schema: JsonObject, path: readonly string[] = []): Mirrored[] {
  if (!isObject(schema.properties) || path.length >= DEPTH_MAX) return [];
  return Object.entries(schema.properties).flatMap(([key, property]) => {
    if (!isObject(property)) return [];
    const name = property['x-mcp-header'];
    const own = typeof name === 'string' && HEADER_NAME.test(name) ? [{ name, path: [...path, key] }] : [];
    return [...own, ...mirroredIn(property, [...path, key])];
  });
}
