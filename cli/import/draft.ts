import type { ClientFormat, ClientServer, StdioSetup } from '../clients/client-format.ts';
import { adaptCommand } from './adapt.ts';
import { envFilePath, readEnvFile } from './env-file.ts';
import type { ServiceNames } from './names.ts';
import { needsEscape, parseSegments, type Segment } from './segments.ts';
import type { VariableTable } from './variable-table.ts';

/** A service on its way from a client's file into the registry. */
export interface Draft {
  server: ClientServer;
  names: ServiceNames;
  command: Segment[];
  args: Segment[][];
  env: Map<string, Segment[]>;
  cwd: Segment[] | undefined;
  /** Values that a file of variables had, which the client's configuration names. */
  fromFile: ReadonlyMap<string, string>;
  changes: string[];
  warnings: string[];
}

interface DraftOptions {
  format: ClientFormat;
  /** Where relative paths start; undefined: nobody knows. */
  base: string | undefined;
}

/** Puts a stdio server's texts into segments, its command and folder fit for a worker. */
export function draftService(
  server: ClientServer,
  setup: StdioSetup,
  names: ServiceNames,
  { format, base }: DraftOptions,
): Draft {
  const { command, args, cwd, changes, warnings } = adaptCommand(setup, base);
  const parse = (text: string) => parseSegments(text, format.variable);
  const draft: Draft = {
    server,
    names,
    command: parse(command),
    args: args.map(parse),
    env: new Map([...setup.env].map(([name, value]) => [name, parse(value)])),
    cwd: cwd === undefined ? undefined : parse(cwd),
    fromFile: new Map(),
    changes: [...names.changes, ...changes],
    warnings: [...server.notes, ...warnings],
  };
  if (setup.envFile !== undefined) readNamedFile(draft, setup.envFile, base);
  for (const [field, segments] of fieldsOf(draft)) tellVariables(draft, field, segments, format.title);
  return draft;
}

/** Tells the table which variables the client's file itself refers to. */
export function referVariables(draft: Draft, table: VariableTable): void {
  for (const [, segments] of fieldsOf(draft)) {
    for (const segment of segments) {
      if (segment.kind === 'text') continue;
      const { name, note, fallback } = segment;
      table.refer(name, draft.names.name, { note, optional: fallback !== undefined });
    }
  }
}

function readNamedFile(draft: Draft, text: string, base: string | undefined): void {
  const path = envFilePath(text, base);
  const cure = 'write its variables into env by hand, as references';
  if (path === undefined) {
    draft.warnings.push(`envFile: nobody knows here where ${text} is; ${cure}`);
    return;
  }
  try {
    const values = readEnvFile(path);
    draft.fromFile = new Map([...values].filter(([name]) => !draft.env.has(name)));
    draft.changes.push(
      `envFile: ${[...values.keys()].join(', ') || 'no variables'}, read from ${path}, are in env`,
    );
  } catch (error) {
    draft.warnings.push(`envFile: ${(error as Error).message}; ${cure}`);
  }
}

function fieldsOf({
  command,
  args,
  env,
  cwd,
}: Pick<Draft, 'command' | 'args' | 'env' | 'cwd'>): [string, Segment[]][] {
  return [
    ['command', command],
    ...args.map((segments, i): [string, Segment[]] => [`args[${i}]`, segments]),
    ...[...env].map(([name, segments]): [string, Segment[]] => [`env.${name}`, segments]),
    ['cwd', cwd ?? []],
  ];
}

function tellVariables(draft: Draft, field: string, segments: readonly Segment[], title: string): void {
  for (const segment of segments) {
    if (segment.kind === 'text' || segment.source === undefined) continue;
    const { source, name, note } = segment;
    const same = source === name || source.startsWith(`${name}:-`);
    if (!same)
      draft.changes.push(`${field}: \${${name}} for \${${source}}${note === undefined ? '' : `, ${note}`}`);
    else if (note !== undefined) draft.warnings.push(`${field}: \${${name}} is ${note}`);
    if (source.includes('${'))
      draft.warnings.push(`${field}: variables inside \${${name}…} are not understood`);
  }
  if (needsEscape(segments))
    draft.changes.push(`${field}: a \${…} is plain text to ${title}, and is written so that it stays so`);
}
