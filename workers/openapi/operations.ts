import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { ERROR_REFERENCES } from './errors.ts';
import { embedSchema, isPlain } from './schema.ts';

interface Operations {
  paths: JsonObject;
  /** Of arguments and outputs, by their name in the document. */
  schemas: JsonObject;
}

const OPERATION_ID_MAX = 100;
const ANY_OBJECT: JsonObject = { type: 'object' };

/** One operation for each tool. A tool whose name no URL can say is left out: `/execute` reaches it. */
export function describeTools(tools: readonly JsonObject[]): Operations {
  const paths: [string, JsonObject][] = [];
  const schemas: [string, unknown][] = [];
  const idOf = operationIds();
  const seen = new Set<string>();
  for (const tool of tools) {
    const path = pathOf(tool.name);
    if (path === undefined || seen.has(path)) continue;
    seen.add(path);
    const id = idOf(String(tool.name));
    for (const [suffix, schema] of schemasOf(tool)) {
      schemas.push([`${id}_${suffix}`, embedSchema(schema, `#/components/schemas/${id}_${suffix}`)]);
    }
    paths.push([path, { post: operation(tool, id) }]);
  }
  return { paths: Object.fromEntries(paths), schemas: Object.fromEntries(schemas) };
}

function schemasOf({ inputSchema, outputSchema }: JsonObject): [string, unknown][] {
  const input: [string, unknown] = ['arguments', isObject(inputSchema) ? inputSchema : ANY_OBJECT];
  return isObject(outputSchema) ? [input, ['output', outputSchema]] : [input];
}

function operation(tool: JsonObject, id: string): JsonObject {
  const { name, description, annotations, inputSchema } = tool;
  const required = isObject(inputSchema) && Array.isArray(inputSchema.required) ? inputSchema.required : [];
  const title = isObject(annotations) ? annotations.title : undefined;
  return {
    operationId: id,
    summary: firstText(tool.title, title, name),
    ...(typeof description === 'string' ? { description } : {}),
    'x-mcp-tool': name,
    ...(isObject(annotations) && isPlain(annotations) ? { 'x-mcp-annotations': annotations } : {}),
    requestBody: {
      description: 'The arguments of the tool.',
      required: required.length > 0,
      content: jsonOf({ $ref: `#/components/schemas/${id}_arguments` }),
    },
    responses: {
      200: {
        description:
          'What the tool answered; as events (progress, log, result, error) for who prefers these.',
        content: { ...jsonOf(resultSchema(tool, id)), 'text/event-stream': { schema: { type: 'string' } } },
      },
      ...ERROR_REFERENCES,
    },
  };
}

function resultSchema({ outputSchema }: JsonObject, id: string): JsonObject {
  const result = { $ref: '#/components/schemas/CallToolResult' };
  if (!isObject(outputSchema)) return result;
  const structuredContent = { $ref: `#/components/schemas/${id}_output` };
  return { allOf: [result, { properties: { structuredContent } }] };
}

function jsonOf(schema: JsonObject): JsonObject {
  return { 'application/json': { schema } };
}

/** Names that are one, or an empty, step of a path never arrive as they were written (RFC 3986 §5.2.4). */
function pathOf(name: unknown): string | undefined {
  if (typeof name !== 'string' || ['', '.', '..'].includes(name) || !name.isWellFormed()) return undefined;
  return `/tools/${encodeURIComponent(name)}`;
}

/** Makes names that generated code can use; of those that become equal, all but the first get a number. */
function operationIds(): (name: string) => string {
  const taken = new Set<string>();
  const last = new Map<string, number>();
  return name => {
    const plain = name.replace(/[^A-Za-z0-9_]/g, '_').slice(0, OPERATION_ID_MAX);
    const stem = /^\d/.test(plain) ? `_${plain}` : plain;
    let number = last.get(stem) ?? 1;
    let id = stem;
    while (taken.has(id)) {
      number += 1;
      id = `${stem}_${number}`;
    }
    taken.add(id);
    last.set(stem, number);
    return id;
  };
}

function firstText(...texts: unknown[]): string {
  return texts.find(text => typeof text === 'string' && text !== '') as string;
}
