import { type Block, toHcl } from './hcl.ts';
import { gatewayGroup } from './nomad-gateway.ts';
import { inSecrets, mount, scratch, secretFile, UPDATE } from './nomad-parts.ts';
import { type Files, type Workload, workerEnvironment, workerSecrets } from './workload.ts';
import { origin } from './yaml.ts';

const FILE = 'config/deploy/nomad/mcp-mesh.nomad.hcl';
const ABOUT = `${origin('nomad')}
Each Nomad client needs a Consul agent at 127.0.0.1:8500, the Docker driver and, in its own configuration,
\`client { max_kill_timeout = "LONGESTs" }\` or more: the default of 30 s would cut a drain short.
Workers register themselves in Consul: there is no \`service\` block, which would do it a second time.`;

/** One job: a group for the gateway, one for each service. */
export function renderNomad(workloads: readonly Workload[]): Files {
  const longest = Math.max(90, ...workloads.map(({ graceSeconds }) => graceSeconds));
  const job: Block = {
    type: 'job',
    labels: ['mcp-mesh'],
    attributes: { datacenters: ['*'], type: 'service' },
    blocks: [gatewayGroup(), ...workloads.map(workerGroup)],
  };
  const comment = ABOUT.replace('LONGEST', String(longest))
    .split('\n')
    .map(line => `# ${line}`)
    .join('\n');
  return new Map([
    [FILE, `${comment}\n\n${VARIABLES.map(block => `${toHcl(block)}\n`).join('')}${toHcl(job)}`],
  ]);
}

const VARIABLES: Block[] = [
  ['worker_image', 'mcp-mesh-worker:latest'],
  ['plugin_server_image', 'mcp-mesh-plugin-server:latest'],
  ['kong_image', 'kong:3.9'],
  ['config', '/srv/mcp-mesh'],
].map(([name = '', value = '']) => ({ type: 'variable', labels: [name], attributes: { default: value } }));

function workerGroup(workload: Workload): Block {
  const { label, replicas, scaling, memoryMb, graceSeconds } = workload;
  const task: Block = {
    type: 'task',
    labels: ['worker'],
    attributes: { driver: 'docker', kill_signal: 'SIGTERM', kill_timeout: `${graceSeconds}s` },
    blocks: [
      {
        type: 'config',
        attributes: {
          image: '${var.worker_image}',
          // The host's own network: its Consul agent is at loopback, and others reach the worker at its port.
          network_mode: 'host',
          readonly_rootfs: true,
          cap_drop: ['all'],
          security_opt: ['no-new-privileges'],
          mounts: [mount('/config', '/app/config'), scratch('/tmp')],
        },
      },
      {
        type: 'env',
        attributes: {
          ...inSecrets(workerEnvironment(workload)),
          WORKER_PORT: '${NOMAD_PORT_worker}',
          CONSUL_HTTP_ADDR: '127.0.0.1:8500',
          MESH_ADVERTISE_ADDRESS: '${NOMAD_IP_worker}',
          MESH_HOST: '${NOMAD_ALLOC_ID}',
        },
      },
      ...workerSecrets(workload).map(name => secretFile(`worker-${label}`, name)),
      { type: 'resources', attributes: { cpu: 500, memory: memoryMb } },
    ],
  };
  return {
    type: 'group',
    labels: [`worker-${label}`],
    attributes: { count: replicas },
    blocks: [
      ...(scaling ? [scalingOf(workload, scaling)] : []),
      UPDATE,
      { type: 'network', blocks: [{ type: 'port', labels: ['worker'] }] },
      task,
    ],
  };
}

/** For the Nomad Autoscaler with its Prometheus plugin. */
function scalingOf(
  { service }: Workload,
  { min, max, targetInFlight }: NonNullable<Workload['scaling']>,
): Block {
  const busy = `avg(mcp_mesh_worker_in_flight{service="${service}"} + mcp_mesh_worker_queue_depth{service="${service}"})`;
  return {
    type: 'scaling',
    attributes: { enabled: true, min, max },
    blocks: [
      {
        type: 'policy',
        attributes: { evaluation_interval: '15s', cooldown: '1m' },
        blocks: [
          {
            type: 'check',
            labels: ['busy'],
            attributes: { source: 'prometheus', query: busy },
            blocks: [{ type: 'strategy', labels: ['target-value'], attributes: { target: targetInFlight } }],
          },
        ],
      },
    ],
  };
}
