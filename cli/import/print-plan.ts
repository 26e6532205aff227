import { MCP_PATH } from '../../mesh/names.ts';
import { plain } from '../table.ts';
import type { ImportPlan } from './plan.ts';
import type { Action, PlannedService } from './planned-service.ts';

const SIGNS: Readonly<Record<Action, string>> = { add: '+', replace: '~', keep: '=', same: '=', skip: '-' };

/** The plan for people; no line of it moves the cursor. */
export function printPlan(plan: ImportPlan, title: string): string {
  const lines = [
    `${plan.file} (${title}) → ${plan.registry}`,
    '',
    ...plan.services.flatMap(serviceLines),
    ...plan.notes.map(note => `note: ${note}`),
    ...variableLines(plan),
  ];
  return `${lines.map(plain).join('\n')}\n`;
}

function serviceLines(service: PlannedService): string[] {
  const { action, from, place, project, name, consul, entry, reason } = service;
  const origin = `${JSON.stringify(from)} at ${place}${project === undefined ? '' : `, of ${project}`}`;
  const doing = {
    add: 'add',
    replace: 'replace',
    keep: 'kept as it is',
    same: 'the same already',
    skip: 'left out',
  }[action];
  const head = name === undefined ? origin : `${name}  ${MCP_PATH}/${name}  ${consul} in Consul`;
  const lines = [`${SIGNS[action]} ${head}`, `    ${doing}${reason === undefined ? '' : `: ${reason}`}`];
  if (name !== undefined) lines.push(`    from ${origin}`);
  if (entry?.command !== undefined)
    lines.push(`    runs ${[entry.command, ...((entry.args ?? []) as unknown[])].map(shown).join(' ')}`);
  const variables = Object.keys(entry?.env ?? {});
  if (variables.length > 0) lines.push(`    env ${variables.join(', ')}`);
  if (entry?.instances === 0) lines.push('    instances: 0, as it is disabled in the client');
  return [
    ...lines,
    ...service.changes.map(change => `    changed: ${change}`),
    ...service.warnings.map(warning => `    look at: ${warning}`),
    ...service.unknown.map(({ key, place: at, why }) => `    not carried over: ${key} (${at}): ${why}`),
    '',
  ];
}

function variableLines({ variables }: ImportPlan): string[] {
  if (variables.length === 0) return [];
  return [
    'Variables of the workers (values are not shown):',
    ...variables.map(({ name, kind, services, notes, optional }) => {
      const need = optional ? ', has a default' : '';
      const known = kind === 'secret' ? ', its value is in the file: --secrets-file writes it' : '';
      return `    ${name}: of ${services.join(', ')}${need}${known}${notes.length > 0 ? ` (${notes.join('; ')})` : ''}`;
    }),
    '',
  ];
}

function shown(text: unknown): string {
  return /^[\w@%+=:,./${}-]+$/.test(String(text)) ? String(text) : JSON.stringify(text);
}
