import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { accessControl, FOLDER } from './compose-acl.ts';
import { gateway, observability, registerAndStore, worker } from './compose-services.ts';
import {
  type Files,
  GATEWAY_SECRETS,
  METRICS_PORT,
  SECRETS,
  STATUS_PORT,
  type Workload,
  workerSecrets,
} from './workload.ts';
import { origin, toYaml } from './yaml.ts';

const PROMETHEUS = fileURLToPath(new URL('../../config/prometheus/prometheus.yml', import.meta.url));

const ABOUT = `${origin('compose')}
npx mesh render secrets --dir secrets && docker compose up --build --detach
Networks: clients reach Kong alone. Each service has a network of its own, with its workers, and what these need or are
needed by; no worker reaches one of another service.`;

/** docker-compose.yml and the files that it mounts which are its own. */
export function renderCompose(workloads: readonly Workload[]): Files {
  const networks = ['control', ...workloads.map(networkOf)];
  const secrets = new Map([
    ...GATEWAY_SECRETS.map(name => [`gateway-${name}`, `gateway/${name}`] as const),
    ['redis-password', 'redis/password'] as const,
    ['grafana-password', 'grafana/password'] as const,
    ...workloads.flatMap(workload =>
      workerSecrets(workload).map(name => {
        const folder = `worker-${workload.label}`;
        return [`${folder}-${name}`, `${folder}/${name}`] as const;
      }),
    ),
  ]);
  const document = {
    services: {
      ...registerAndStore(networks),
      ...gateway(networks),
      ...Object.fromEntries(
        workloads.map(workload => [`worker-${workload.label}`, worker(workload, networkOf(workload))]),
      ),
      ...observability(networks),
    },
    networks: {
      edge: {},
      ...Object.fromEntries(networks.map(name => [name, name === 'control' ? { internal: true } : {}])),
    },
    volumes: {
      'plugin-socket': {},
      'consul-data': {},
      'redis-data': {},
      'prometheus-data': {},
      'grafana-data': {},
    },
    secrets: Object.fromEntries(
      [...secrets].map(([name, file]) => [name, { file: `\${MESH_SECRETS:-./secrets}/${file}` }]),
    ),
  };
  return new Map([
    ['docker-compose.yml', toYaml(ABOUT, document)],
    [`${FOLDER}/prometheus.yml`, prometheus({})],
    [`${FOLDER}/prometheus-acl.yml`, prometheus({ credentials_file: `${SECRETS}/consul-token` })],
    [`${FOLDER}/grafana-datasources.yml`, datasources()],
    [`${FOLDER}/e2e.yml`, endToEnd()],
    [`${FOLDER}/acl.yml`, accessControl(workloads)],
  ]);
}

function networkOf({ label }: Workload): string {
  return `mcp-${label}`;
}

/** That of config/prometheus, with the places that containers have, and Kong's own metrics. */
function prometheus(authorization: { credentials_file?: string }): string {
  const config = parse(readFileSync(PROMETHEUS, 'utf8')) as {
    scrape_configs: {
      job_name: string;
      consul_sd_configs?: { server: string; authorization?: object }[];
      static_configs?: { targets: string[] }[];
    }[];
  };
  for (const { consul_sd_configs = [], static_configs = [] } of config.scrape_configs) {
    for (const discovery of consul_sd_configs) {
      discovery.server = 'consul:8500';
      if (authorization.credentials_file) discovery.authorization = authorization;
    }
    for (const fixed of static_configs) fixed.targets = [`plugin-server:${METRICS_PORT}`];
  }
  config.scrape_configs.push({ job_name: 'kong', static_configs: [{ targets: [`kong:${STATUS_PORT}`] }] });
  return toYaml(origin('compose'), config);
}

function datasources(): string {
  return toYaml(origin('compose'), {
    apiVersion: 1,
    datasources: [
      {
        name: 'Prometheus',
        uid: 'prometheus',
        type: 'prometheus',
        access: 'proxy',
        url: 'http://prometheus:9090',
        isDefault: true,
        jsonData: { timeInterval: '15s', httpMethod: 'POST' },
      },
      { name: 'Jaeger', uid: 'jaeger', type: 'jaeger', access: 'proxy', url: 'http://jaeger:16686' },
    ],
  });
}

/** What tests look at, which nobody else should: Kong's Admin API and Consul, on this host's loopback. */
function endToEnd(): string {
  const about = `${origin('compose')}
For the end-to-end tests: docker compose -f docker-compose.yml -f ${FOLDER}/e2e.yml up --build --detach --wait`;
  return toYaml(about, {
    services: {
      kong: { environment: { KONG_ADMIN_LISTEN: '0.0.0.0:8001' }, ports: ['127.0.0.1:8001:8001'] },
      consul: { ports: ['127.0.0.1:8500:8500'] },
    },
  });
}
