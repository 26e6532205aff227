import {
  GATEWAY_PORT,
  GATEWAY_SECRETS,
  gatewayEnvironment,
  IMAGE_USER,
  SECRETS,
  STATUS_PORT,
  type Workload,
  workerEnvironment,
  workerSecrets,
} from './workload.ts';

/** The containers of docker-compose.yml. */

type Container = Record<string, unknown>;

/** Where spans go, when somebody says so: compose has no way to ask whether the profile is on. */
const TRACES = { OTEL_EXPORTER_OTLP_ENDPOINT: '${OTEL_EXPORTER_OTLP_ENDPOINT:-}' };
const CONSUL = { CONSUL_HTTP_ADDR: 'consul:8500' };

/** No more than it needs: no new privileges, no capabilities, nothing to write to but memory. */
const CONFINED: Container = {
  read_only: true,
  tmpfs: ['/tmp'],
  cap_drop: ['ALL'],
  security_opt: ['no-new-privileges:true'],
  restart: 'unless-stopped',
};

/** Consul, and Redis for the counters that all gateways and workers share. */
export function registerAndStore(networks: readonly string[]): Record<string, Container> {
  return {
    consul: {
      image: '${CONSUL_IMAGE:-hashicorp/consul:1.20}',
      // One server: it is nobody's peer, and instances are registered with addresses of their own.
      command: ['agent', '-server', '-ui', '-bootstrap-expect=1', '-bind=127.0.0.1', '-client=0.0.0.0'],
      networks,
      volumes: ['consul-data:/consul/data'],
      restart: 'unless-stopped',
      healthcheck: check(['CMD-SHELL', 'wget -qO- http://127.0.0.1:8500/v1/status/leader | grep -q :']),
      ...limits({ cpus: 1, memoryMb: 512, pids: 256 }),
    },
    redis: {
      image: '${REDIS_IMAGE:-redis:7-alpine}',
      command: ['sh', '-c', REDIS_START],
      networks,
      secrets: [secret('redis-password', 'password')],
      volumes: ['redis-data:/data'],
      tmpfs: ['/tmp'],
      security_opt: ['no-new-privileges:true'],
      restart: 'unless-stopped',
      healthcheck: check([
        'CMD-SHELL',
        `REDISCLI_AUTH=$$(cat ${SECRETS}/password) redis-cli ping | grep -q PONG`,
      ]),
      ...limits({ cpus: 1, memoryMb: 256, pids: 64 }),
    },
  };
}

/** As root it may read the password, whoever owns the file; the server itself is started as its own user. */
const REDIS_START = [
  'umask 077',
  `printf 'requirepass %s\\nappendonly yes\\nmaxmemory 128mb\\nmaxmemory-policy noeviction\\n' "$$(cat ${SECRETS}/password)" > /tmp/redis.conf`,
  'chown redis /tmp/redis.conf',
  'exec docker-entrypoint.sh redis-server /tmp/redis.conf',
].join(' && ');

/** A stock Kong, and its plugin server beside it. */
export function gateway(networks: readonly string[]): Record<string, Container> {
  return {
    'plugin-server': {
      ...CONFINED,
      image: '${PLUGIN_SERVER_IMAGE:-mcp-mesh-plugin-server}',
      build: { context: '.', dockerfile: 'kong/Dockerfile', target: 'plugin-server' },
      environment: {
        ...gatewayEnvironment(),
        ...CONSUL,
        ...TRACES,
        MESH_PUBLIC_URL: '${MESH_PUBLIC_URL:-}',
        MESH_ALLOWED_ORIGINS: '${MESH_ALLOWED_ORIGINS:-}',
      },
      networks,
      secrets: GATEWAY_SECRETS.map(name => secret(`gateway-${name}`, name)),
      // The folder and not the file: a file that is replaced would stay the old one in here.
      volumes: ['plugin-socket:/run/mesh', '${MESH_CONFIG:-./config}:/etc/mcp-mesh:ro'],
      depends_on: healthy('consul', 'redis'),
      ...limits({ cpus: 1, memoryMb: 512, pids: 64 }),
    },
    kong: {
      ...CONFINED,
      image: '${KONG_IMAGE:-kong:3.9}',
      user: 'kong',
      // The socket is for this group.
      group_add: [String(IMAGE_USER)],
      environment: {
        KONG_PREFIX: '/var/run/kong',
        KONG_PROXY_ACCESS_LOG: '/dev/stdout',
        KONG_PROXY_ERROR_LOG: '/dev/stderr',
        KONG_STATUS_LISTEN: `0.0.0.0:${STATUS_PORT}`,
      },
      ports: [`\${MESH_BIND:-127.0.0.1}:\${MESH_PORT:-${GATEWAY_PORT}}:${GATEWAY_PORT}`],
      networks: ['edge', ...networks],
      tmpfs: ['/tmp', '/var/run/kong'],
      volumes: [
        'plugin-socket:/run/mesh',
        './kong/kong.conf:/etc/kong/kong.conf:ro',
        './kong/kong.yml:/etc/kong/kong.yml:ro',
      ],
      depends_on: healthy('plugin-server'),
      healthcheck: check(['CMD', 'kong', 'health']),
      stop_grace_period: '90s',
      // Kong's own signal for it: calls under way are finished.
      stop_signal: 'SIGQUIT',
      ...limits({ cpus: 2, memoryMb: 1024, pids: 256 }),
    },
  };
}

/** The workers of a service: no fixed name or host port, so that `--scale` works. */
export function worker(workload: Workload, network: string): Container {
  const { label, variables, replicas, memoryMb, processes, graceSeconds } = workload;
  return {
    ...CONFINED,
    image: '${WORKER_IMAGE:-mcp-mesh-worker}',
    build: { context: '.', dockerfile: 'workers/Dockerfile' },
    environment: {
      ...workerEnvironment(workload),
      ...CONSUL,
      ...TRACES,
      MESH_ALLOWED_ORIGINS: '${MESH_ALLOWED_ORIGINS:-}',
      ...Object.fromEntries(variables.map(name => [name, `\${${name}:-}`])),
    },
    networks: [network],
    secrets: workerSecrets(workload).map(name => secret(`worker-${label}-${name}`, name)),
    volumes: ['${MESH_CONFIG:-./config}:/app/config:ro'],
    depends_on: healthy('consul', 'redis'),
    stop_grace_period: `${graceSeconds}s`,
    ...limits({ cpus: 2, memoryMb, pids: processes, replicas }),
  };
}

/** Metrics, dashboards and traces: `docker compose --profile observability up`. */
export function observability(networks: readonly string[]): Record<string, Container> {
  const common = {
    profiles: ['observability'],
    restart: 'unless-stopped',
    security_opt: ['no-new-privileges:true'],
  };
  return {
    prometheus: {
      ...common,
      image: '${PROMETHEUS_IMAGE:-prom/prometheus:v3.1.0}',
      // A token of Consul's would be for this user; what it writes to is this group's.
      user: `${IMAGE_USER}:65534`,
      networks,
      volumes: [
        './config/deploy/compose/prometheus.yml:/etc/prometheus/prometheus.yml:ro',
        './config/prometheus/rules:/etc/prometheus/rules:ro',
        'prometheus-data:/prometheus',
      ],
      healthcheck: check(['CMD', 'wget', '-qO-', 'http://127.0.0.1:9090/-/healthy']),
      ...limits({ cpus: 1, memoryMb: 1024, pids: 128 }),
    },
    grafana: {
      ...common,
      image: '${GRAFANA_IMAGE:-grafana/grafana:11.4.0}',
      // The password is for this user.
      user: `${IMAGE_USER}:0`,
      environment: { GF_SECURITY_ADMIN_PASSWORD__FILE: `${SECRETS}/password` },
      ports: ['127.0.0.1:${GRAFANA_PORT:-3000}:3000'],
      networks: ['edge', 'control'],
      secrets: [secret('grafana-password', 'password')],
      volumes: [
        './config/grafana/provisioning/dashboards:/etc/grafana/provisioning/dashboards:ro',
        './config/deploy/compose/grafana-datasources.yml:/etc/grafana/provisioning/datasources/mcp-mesh.yml:ro',
        './config/grafana/dashboards:/etc/grafana/dashboards/mcp-mesh:ro',
        'grafana-data:/var/lib/grafana',
      ],
      healthcheck: check(['CMD', 'wget', '-qO-', 'http://127.0.0.1:3000/api/health']),
      ...limits({ cpus: 1, memoryMb: 512, pids: 128 }),
    },
    jaeger: {
      ...common,
      image: '${JAEGER_IMAGE:-jaegertracing/jaeger:2.2.0}',
      ports: ['127.0.0.1:${JAEGER_PORT:-16686}:16686'],
      networks: ['edge', ...networks],
      ...limits({ cpus: 1, memoryMb: 1024, pids: 128 }),
    },
  };
}

function secret(source: string, target: string): Container {
  return { source, target };
}

function healthy(...services: string[]): Container {
  return Object.fromEntries(services.map(name => [name, { condition: 'service_healthy' }]));
}

function check(test: string[]): Container {
  return { test, interval: '5s', timeout: '5s', retries: 12, start_period: '20s' };
}

interface Limits {
  cpus: number;
  memoryMb: number;
  pids: number;
  replicas?: number;
}

function limits({ cpus, memoryMb, pids, replicas }: Limits): Container {
  return {
    pids_limit: pids,
    deploy: {
      ...(replicas === undefined ? {} : { replicas }),
      resources: { limits: { cpus: String(cpus), memory: `${memoryMb}M` } },
    },
  };
}
