import { IMAGE_USER, SECRETS, type Workload } from './workload.ts';
import { origin, toYaml } from './yaml.ts';

/** Of what docker-compose.yml mounts. */
export const FOLDER = 'config/deploy/compose';

/** Consul's ACLs: the server refuses who has no token, and one container gives it policies and tokens, once. */
export function accessControl(workloads: readonly Workload[]): string {
  const about = `${origin('compose')}
With ACLs in Consul: docker compose -f docker-compose.yml -f ${FOLDER}/acl.yml up --build --detach`;
  const token = { CONSUL_HTTP_TOKEN_FILE: `${SECRETS}/consul-token` };
  const withToken = (whose: string) => ({
    environment: token,
    secrets: [{ source: `${whose}-consul-token`, target: 'consul-token' }],
    depends_on: { 'consul-setup': { condition: 'service_completed_successfully' } },
  });
  const holders = ['consul', 'gateway', 'prometheus', ...workloads.map(({ label }) => `worker-${label}`)];
  return toYaml(about, {
    services: {
      consul: {
        entrypoint: ['sh', '-c', CONSUL_START],
        secrets: [{ source: 'consul-consul-token', target: 'consul-token' }],
        volumes: ['./config/consul:/etc/mcp-mesh/consul:ro'],
      },
      'consul-setup': {
        image: '${CONSUL_IMAGE:-hashicorp/consul:1.20}',
        entrypoint: ['/etc/mcp-mesh/consul/setup.sh', '/secrets'],
        // The files are their owner's.
        user: String(IMAGE_USER),
        environment: {
          CONSUL_HTTP_ADDR: 'consul:8500',
          CONSUL_HTTP_TOKEN_FILE: '/secrets/consul/consul-token',
        },
        networks: ['control'],
        volumes: ['./config/consul:/etc/mcp-mesh/consul:ro', '${MESH_SECRETS:-./secrets}:/secrets:ro'],
        depends_on: { consul: { condition: 'service_healthy' } },
        restart: 'on-failure',
      },
      'plugin-server': withToken('gateway'),
      ...Object.fromEntries(workloads.map(({ label }) => [`worker-${label}`, withToken(`worker-${label}`)])),
      prometheus: {
        secrets: [{ source: 'prometheus-consul-token', target: 'consul-token' }],
        volumes: [`./${FOLDER}/prometheus-acl.yml:/etc/prometheus/prometheus.yml:ro`],
      },
    },
    secrets: Object.fromEntries(
      holders.map(whose => [
        `${whose}-consul-token`,
        { file: `\${MESH_SECRETS:-./secrets}/${whose}/consul-token` },
      ]),
    ),
  });
}

/** As root it may read the token, whoever owns the file; the image's own entry point then changes the user. */
const CONSUL_START = [
  'umask 077',
  `printf 'acl { tokens { initial_management = "%s" agent = "%s" } }' $$(cat ${SECRETS}/consul-token) $$(cat ${SECRETS}/consul-token) > /tmp/tokens.hcl`,
  'chown consul /tmp/tokens.hcl',
  'exec docker-entrypoint.sh agent -server -ui -bootstrap-expect=1 -bind=127.0.0.1 -client=0.0.0.0' +
    ' -config-file=/etc/mcp-mesh/consul/acl.hcl -config-file=/tmp/tokens.hcl',
].join(' && ');
