import { isObject, type JsonObject } from '../../mesh/jsonrpc.ts';
import { changesBetween, type Difference } from './differences.ts';
import { LISTS, type Listing, type ListName, type Observation } from './observe.ts';

export interface Comparison {
  differences: Difference[];
  /** Differences that change nothing for a client. */
  notes: string[];
}

const DESCRIBING = ['description', 'title'];
const SCHEMAS = ['inputSchema', 'outputSchema'];

/** Compares what the two ways say of the server. `eras`: those of the mesh's own instances. */
export function compare(old: Observation, next: Observation, eras: readonly string[]): Comparison {
  const differences = [...compareInfo(old, next, eras)];
  const notes: string[] = [];
  const [before, after] = [old.info.protocolVersion, next.info.protocolVersion];
  if (before !== after) notes.push(`the protocol's version is ${after} on the new way, ${before} on the old`);
  for (const name of Object.keys(LISTS) as ListName[]) {
    const [a, b] = [old.lists[name], next.lists[name]];
    differences.push(...compareListing(name, a, b));
    if (isReordered(name, a, b)) notes.push(`the ${name} come in another order`);
  }
  return { differences, notes };
}

function compareInfo(old: Observation, next: Observation, eras: readonly string[]): Difference[] {
  const { info: a } = old;
  const { info: b } = next;
  const other = eras.filter(era => era !== a.era);
  const era = { kind: 'era', name: 'server', path: '', old: a.era, new: other.join(', ') };
  return [
    ...(other.length > 0 ? [era] : []),
    ...changesBetween(a.serverInfo, b.serverInfo).map(change => ({
      kind: 'server-info',
      name: 'server',
      ...change,
    })),
    ...changesBetween(a.capabilities, b.capabilities).map(change => ({
      kind: 'capabilities',
      name: change.path.split('/')[1] ?? '',
      ...change,
    })),
    ...changesBetween(a.instructions, b.instructions).map(change => ({
      kind: 'instructions',
      name: 'server',
      ...change,
    })),
  ];
}

function compareListing(name: ListName, a: Listing, b: Listing): Difference[] {
  const { noun, key, method } = LISTS[name];
  if (a.error !== b.error)
    return [{ kind: 'list', name: method, path: '', old: a.error ?? 'a list', new: b.error ?? 'a list' }];
  const [before, after] = [byKey(a, key), byKey(b, key)];
  const names = [...new Set([...before.keys(), ...after.keys()])];
  return names.flatMap((item): Difference[] => {
    const [one, other] = [before.get(item), after.get(item)];
    if (!other) return [{ kind: `${noun}-missing`, name: item, path: '', old: one, new: undefined }];
    if (!one) return [{ kind: `${noun}-added`, name: item, path: '', old: undefined, new: other }];
    return changesBetween(one, other).map(change => ({
      kind: kindOf(noun, change.path),
      name: item,
      ...change,
    }));
  });
}

function kindOf(noun: string, path: string): string {
  const [, member = ''] = path.split('/');
  if (SCHEMAS.includes(member)) return `${noun}-schema`;
  return DESCRIBING.includes(member) ? `${noun}-description` : `${noun}-changed`;
}

function byKey({ items }: Listing, key: string): Map<string, JsonObject> {
  return new Map(items.filter(isObject).map(item => [String(item[key]), item]));
}

function isReordered(name: ListName, a: Listing, b: Listing): boolean {
  const { key } = LISTS[name];
  const [before, after] = [byKey(a, key), byKey(b, key)];
  const shared = (one: typeof before, other: typeof before) =>
    [...one.keys()].filter(item => other.has(item));
  return shared(before, after).join('\n') !== shared(after, before).join('\n');
}
