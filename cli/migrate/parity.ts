import { isObject } from '../../mesh/jsonrpc.ts';
import { HEADERS, MCP_PATH } from '../../mesh/names.ts';
import { CommandError } from '../command.ts';
import { connectGateway, readText } from '../gateway.ts';
import { compare } from './compare.ts';
import type { Difference } from './differences.ts';
import { type Latency, measure } from './latency.ts';
import { type ListName, observe } from './observe.ts';
import { hintedProbes, type Probe, type ProbeResult, runProbe } from './probes.ts';
import { reach, type Side } from './side.ts';

/** What a parity run has found. */
export interface Parity {
  service: string;
  old: Way;
  new: Way;
  differences: Difference[];
  notes: string[];
  probes: ProbeResult[];
  latency: Latency;
}

interface Way {
  /** Command line or URL. */
  where: string;
  server: string;
  era: string;
  counts: Record<ListName, number>;
}

interface ParityOptions {
  service: string;
  /** The old way, and how to say where it is. */
  old: { side: Side; where: string };
  /** The gateway. */
  base: string;
  key: string | undefined;
  probes: readonly Probe[];
  calls: number;
  timeoutMs: number;
}

/** Runs both ways side by side and compares them. @throws CommandError, MeshError when one of them does not answer */
export async function compareWays(options: ParityOptions): Promise<Parity> {
  const { service, old, base, key, timeoutMs } = options;
  const eras = await instanceEras(base, service);
  const url = `${base}${MCP_PATH}/${service}`;
  const headers = {
    // Else what is compared might be the old deployment with itself.
    [HEADERS.side]: 'mesh',
    ...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
  };
  const next = await reach({ url, headers }, { timeoutMs, prefer: old.side.info.era });
  try {
    return await run(options, { side: next, where: url }, eras);
  } finally {
    await next.close();
  }
}

async function run(
  { service, old, probes: chosen, calls }: ParityOptions,
  next: { side: Side; where: string },
  eras: string[],
): Promise<Parity> {
  const before = await observe(old.side);
  const after = await observe(next.side);
  const { differences, notes } = compare(before, after, eras);
  const names = new Set(after.lists.tools.items.map(({ name }) => name));
  // A tool that only one way has is a difference already.
  const hinted = hintedProbes(before.lists.tools.items, chosen).filter(({ tool }) => names.has(tool));
  const probes: ProbeResult[] = [];
  for (const probe of [...chosen, ...hinted]) probes.push(await runProbe(probe, old.side, next.side));
  const steady = probes.find(({ differences: found }) => found.length === 0);
  const latency = await measure({ old: old.side, next: next.side }, steady, calls);
  const way = ({ side, where }: typeof next, { lists }: typeof before): Way => ({
    where,
    server: `${side.info.serverInfo.name} ${side.info.serverInfo.version}`.trim(),
    era: side.info.era,
    counts: {
      tools: lists.tools.items.length,
      prompts: lists.prompts.items.length,
      resources: lists.resources.items.length,
      templates: lists.templates.items.length,
    },
  });
  return {
    service,
    old: way(old, before),
    new: way(next, after),
    differences: [...differences, ...probes.flatMap(({ differences: found }) => found)],
    notes,
    probes,
    latency,
  };
}

/** The eras of the service's instances: to its clients the mesh speaks both. */
async function instanceEras(base: string, service: string): Promise<string[]> {
  const reply = await connectGateway(base).send(`/${service}/status`);
  const status: unknown = JSON.parse(await readText(reply));
  const details = isObject(status) && Array.isArray(status.details) ? status.details.filter(isObject) : [];
  const passing = details.filter(({ state }) => state === 'passing');
  if (passing.length === 0)
    throw new CommandError(`${service} has no healthy instance in the mesh`, {
      facts: { code: 'no_healthy_instance' },
      hints: [`\`mesh doctor ${service}\` finds out why`],
    });
  return [...new Set(passing.map(({ era }) => era).filter(era => typeof era === 'string'))];
}
