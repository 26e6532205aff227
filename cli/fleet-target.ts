import { suggestion } from '../mesh/suggestion.ts';
import type { ControlClient, Target } from '../workers/fleet/control-client.ts';
import { UsageError } from './command.ts';
import { plain } from './table.ts';

/**
 * What a name on the command line stands for: a service, or an instance by its id or slot.
 * @throws UsageError with the nearest name when there is neither such a service nor such an instance
 */
export async function findTarget(control: ControlClient, name: string): Promise<Target> {
  const { services, instances } = await control.status();
  if (services.some(({ service }) => service === name)) return { service: name };
  if (instances.some(({ id, slot }) => id === name || slot === name)) return { instance: name };
  const names = services.map(({ service }) => service);
  const known = [...names, ...instances.flatMap(({ id, slot }) => [slot, ...(id === null ? [] : [id])])];
  const shown = plain(name).slice(0, 200);
  throw new UsageError(
    `no service or instance "${shown}"${suggestion(shown, known)}; there are: ${names.join(', ')}, and their instances in \`mesh status\``,
  );
}
