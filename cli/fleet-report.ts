import type { FleetStatus } from '../workers/fleet/status.ts';
import { CommandError, EXIT } from './command.ts';
import { answer } from './output.ts';
import { isServed, notesOf } from './status.ts';

/** How an order to the supervisor ended, for people or as `{done, service|instance}`; gives the exit code. */

/** @throws CommandError when the service has not got all that it wants */
export function reportService(status: FleetStatus, name: string, json: boolean | undefined): number {
  const row = status.services.find(({ service }) => service === name);
  if (!row)
    throw new CommandError(`${name} is gone: the registry file has it no more`, {
      facts: { service: null },
    });
  if (!isServed(row) || row.rollout !== null) {
    const notes = notesOf(row, status.instances).map(note => note.replace(/^! /, ''));
    const hints = [`\`mesh doctor ${name}\` finds the cause`];
    throw new CommandError(notes.join('\n'), { facts: { service: row }, hints });
  }
  answer(json, { done: true, service: row }, `${name}: ${row.ready} of ${row.wanted} instances ready\n`);
  return EXIT.ok;
}

/** @throws CommandError when the instance is not as wanted */
export function reportInstance(
  status: FleetStatus,
  name: string,
  wanted: 'ready' | 'drained',
  json: boolean | undefined,
): number {
  const row = status.instances.find(({ id, slot }) => id === name || slot === name);
  const shown = row?.id ?? name;
  // An instance that was one too many goes with being drained.
  const isDrained = wanted === 'drained' && (!row || row.state === 'drained');
  if (row?.state !== wanted && !isDrained) {
    const why = row ? `${row.state}: ${row.reason || row.last_error || 'no reason known'}` : 'gone';
    const hints = [`\`mesh doctor ${row?.service ?? ''}\` finds the cause`];
    throw new CommandError(`${shown} is not ${wanted} but ${why}`, {
      facts: { instance: row ?? null },
      hints,
    });
  }
  const back = wanted === 'drained' ? `; \`mesh restart ${row?.slot ?? name}\` brings it back` : '';
  answer(json, { done: true, instance: row ?? null }, `${shown} is ${wanted}${back}\n`);
  return EXIT.ok;
}

/** For `--no-wait`. */
export function begun(text: string, json: boolean | undefined): number {
  answer(json, { done: false }, `${text}; \`mesh status\` shows how far it is\n`);
  return EXIT.ok;
}
