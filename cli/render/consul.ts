import { toHcl } from './hcl.ts';
import type { Files, Workload } from './workload.ts';
import { origin } from './yaml.ts';

const FOLDER = 'config/consul';
const MESH_PREFIX = 'mcp-';
/** Health of a service is shown with that of its nodes. */
const NODES = { type: 'node_prefix', labels: [''], attributes: { policy: 'read' } };

/** ACL policies: what gateways, and what the workers of each service, may do in Consul. */
export function renderConsul(workloads: readonly Workload[]): Files {
  return new Map([
    [`${FOLDER}/plugin.hcl`, pluginPolicy(workloads)],
    ...workloads.map((workload): [string, string] => [
      `${FOLDER}/worker-${workload.label}.hcl`,
      workerPolicy(workload),
    ]),
  ]);
}

/** It reads, and that is all: the services of the mesh, also those with names of their own, and their definitions. */
function pluginPolicy(workloads: readonly Workload[]): string {
  const others = workloads.map(({ consulName }) => consulName).filter(name => !name.startsWith(MESH_PREFIX));
  return policy('Of gateways: they only read.', [
    { type: 'service_prefix', labels: [MESH_PREFIX], attributes: { policy: 'read' } },
    ...others.map(name => ({ type: 'service', labels: [name], attributes: { policy: 'read' } })),
    NODES,
    { type: 'key_prefix', labels: ['mcp-mesh/services/'], attributes: { policy: 'read' } },
  ]);
}

/** Its own service, which it also looks its peers up in, and its own definition. */
function workerPolicy({ service, consulName }: Workload): string {
  return policy(`Of the workers of "${service}": their own entries, and nobody else's.`, [
    { type: 'service', labels: [consulName], attributes: { policy: 'write' } },
    NODES,
    { type: 'key', labels: [`mcp-mesh/services/${service}`], attributes: { policy: 'write' } },
  ]);
}

function policy(about: string, blocks: Parameters<typeof toHcl>[0][]): string {
  return `# ${origin('consul')}\n# ${about}\n${blocks.map(block => toHcl(block)).join('')}`;
}
