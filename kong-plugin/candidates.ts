import type { Instance } from '../mesh/consul.ts';

/** Selections by list of instances and wanted capabilities: the same list must come out as the same array. */
const known = new WeakMap<readonly Instance[], Map<string, readonly Instance[]>>();
const SELECTIONS_MAX = 100;

/**
 * The instances that may take a call: those that pass; of these the ones with all the capabilities that were asked
 * for (`X-MCP-Capability`, a comma list), or all when none has them; an activator only when nothing else passes.
 */
export function eligible(instances: readonly Instance[], capabilities = ''): readonly Instance[] {
  const selections = known.get(instances) ?? new Map<string, readonly Instance[]>();
  known.set(instances, selections);
  const selected = selections.get(capabilities) ?? select(instances, capabilities);
  // A caller chooses the text.
  if (selections.size < SELECTIONS_MAX) selections.set(capabilities, selected);
  return selected;
}

function select(instances: readonly Instance[], capabilities: string): readonly Instance[] {
  const passing = instances.filter(({ status }) => status === 'passing');
  const working = passing.filter(({ meta }) => meta.role !== 'activator');
  const able = working.length > 0 ? working : passing;
  const wanted = words(capabilities);
  if (wanted.length === 0) return able;
  const capable = able.filter(({ meta }) => {
    const has = new Set(words(meta.capabilities ?? ''));
    return wanted.every(word => has.has(word));
  });
  return capable.length > 0 ? capable : able;
}

function words(list: string): string[] {
  return list
    .split(',')
    .map(word => word.trim())
    .filter(word => word !== '');
}
