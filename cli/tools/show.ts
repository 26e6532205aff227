import { isObject } from '../../mesh/jsonrpc.ts';
import type { Tool } from '../call/arguments.ts';
import { forTerminal } from '../call/content.ts';
import { choicesOf, describeTypes, propertyOf, type Schema, typesOf } from '../call/schema.ts';
import { EXIT } from '../command.ts';
import { connectGateway } from '../gateway.ts';
import { answer } from '../output.ts';
import { type Column, formatTable } from '../table.ts';
import type { ToolsOptions } from '../tools.ts';
import { findTool, listTools, readTool } from './list.ts';

interface Argument {
  name: string;
  type: string;
  required: boolean;
  about: string;
}

const TOOLS: readonly Column<Tool>[] = [
  { title: 'TOOL', cell: tool => tool.name },
  { title: 'WHAT', cell: tool => firstLine(tool.description), least: 20 },
];
const ARGUMENTS: readonly Column<Argument>[] = [
  { title: 'ARGUMENT', cell: argument => argument.name },
  { title: 'TYPE', cell: argument => argument.type, least: 12 },
  { title: 'NEEDED', cell: argument => (argument.required ? 'yes' : '') },
  { title: 'WHAT', cell: argument => firstLine(argument.about), least: 20 },
];

/** Prints the tools of a service, or one. @throws CommandError */
export async function showTools(
  service: string,
  name: string | undefined,
  { url, json }: ToolsOptions,
): Promise<number> {
  const tools = await listTools(connectGateway(url), service);
  const width = process.stdout.columns;
  if (name === undefined) {
    const lines = tools.length === 0 ? [] : formatTable(tools.map(readTool), TOOLS, width);
    answer(json, { tools }, lines.map(line => `${line}\n`).join(''));
    return EXIT.ok;
  }
  const tool = findTool(tools, service, name);
  answer(json, tool, describeTool(service, tool, width));
  return EXIT.ok;
}

/** For people; ends with a line end. */
function describeTool(service: string, found: Record<string, unknown>, width: number | undefined): string {
  const tool = readTool(found);
  const rows = argumentsOf(tool.inputSchema);
  const hints = isObject(found.annotations)
    ? Object.entries(found.annotations).flatMap(([key, value]) => (value === true ? [key] : []))
    : [];
  const example = rows.filter(({ required }) => required).map(argument => ` --arg ${argument.name}=…`);
  const lines = [
    `${tool.name}${hints.length > 0 ? ` (${hints.join(', ')})` : ''}`,
    ...(tool.description === '' ? [] : ['', ...tool.description.trim().split('\n')]),
    '',
    ...(rows.length === 0 ? ['no arguments'] : formatTable(rows, ARGUMENTS, width)),
    '',
    `mesh call ${service} ${tool.name}${example.join('')}`,
  ];
  return `${lines.map(forTerminal).join('\n')}\n`;
}

function argumentsOf(root: Schema): Argument[] {
  const required = Array.isArray(root.required) ? root.required : [];
  return Object.keys(isObject(root.properties) ? root.properties : {}).map(name => {
    const { schema = {} } = propertyOf(root, name, root);
    return {
      name,
      type: choicesOf(schema, root)?.join('|') ?? describeTypes(typesOf(schema, root)),
      required: required.includes(name),
      about: typeof schema.description === 'string' ? schema.description : '',
    };
  });
}

function firstLine(text: string): string {
  return text.trim().split('\n', 1)[0] ?? '';
}
