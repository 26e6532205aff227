import {
  ANNOTATIONS,
  CONFINED,
  CONSUL_AGENT,
  disruptionBudget,
  environment,
  object,
  POD_SECURITY,
  resources,
  selectorOf,
} from './k8s-object.ts';
import { GATEWAY_PORT, gatewayEnvironment, METRICS_PORT, SECRETS, STATUS_PORT } from './workload.ts';

const NAME = 'gateway';
const SOCKET = { name: 'socket', mountPath: '/run/mesh' };
/** Endpoints are taken out of balancers everywhere before Kong begins to end. */
const PRE_STOP_SECONDS = 10;
const GRACE_SECONDS = 90;

/** Kong with its plugin server beside it, and the one Service of the mesh. */
export function kubernetesGateway(): object[] {
  const template = { metadata: { labels: selectorOf(NAME), annotations: ANNOTATIONS }, spec: pod() };
  return [
    object('apps/v1', 'Deployment', NAME, {
      spec: { replicas: 2, selector: { matchLabels: selectorOf(NAME) }, template },
    }),
    object('v1', 'Service', NAME, {
      spec: {
        type: 'ClusterIP',
        selector: selectorOf(NAME),
        ports: [{ name: 'http', port: GATEWAY_PORT, targetPort: 'proxy' }],
      },
    }),
    disruptionBudget(NAME),
    redis(),
    object('v1', 'Service', 'redis', {
      spec: { selector: selectorOf('redis'), ports: [{ name: 'redis', port: 6379, targetPort: 6379 }] },
    }),
  ];
}

function pod(): object {
  return {
    automountServiceAccountToken: false,
    // Their variables look like settings.
    enableServiceLinks: false,
    terminationGracePeriodSeconds: GRACE_SECONDS + PRE_STOP_SECONDS,
    // The socket is the group's.
    securityContext: { ...POD_SECURITY, supplementalGroups: [POD_SECURITY.runAsGroup] },
    // With a restart policy of its own it is a side-car (Kubernetes 1.29): up before Kong, and down after it.
    initContainers: [pluginServer()],
    containers: [kong()],
    volumes: [
      { name: 'socket', emptyDir: { medium: 'Memory' } },
      { name: 'tmp', emptyDir: {} },
      { name: 'prefix', emptyDir: {} },
      { name: 'secrets', secret: { secretName: NAME, defaultMode: 0o440 } },
      { name: 'config', configMap: { name: 'mcp-mesh-config' } },
    ],
  };
}

function pluginServer(): object {
  return {
    name: 'plugin-server',
    image: 'mcp-mesh-plugin-server:latest',
    imagePullPolicy: 'IfNotPresent',
    restartPolicy: 'Always',
    env: [...CONSUL_AGENT, ...environment(gatewayEnvironment())],
    ports: [{ name: 'mesh-metrics', containerPort: METRICS_PORT }],
    startupProbe: {
      exec: { command: ['test', '-S', '/run/mesh/mesh.sock'] },
      periodSeconds: 1,
      failureThreshold: 60,
    },
    resources: resources('250m', 512),
    securityContext: CONFINED,
    volumeMounts: [
      SOCKET,
      { name: 'tmp', mountPath: '/tmp' },
      { name: 'secrets', mountPath: SECRETS, readOnly: true },
      // Not by subPath: a change of the policy takes effect without a restart.
      { name: 'config', mountPath: '/etc/mcp-mesh', readOnly: true },
    ],
  };
}

function kong(): object {
  const file = (name: string) => ({ name: 'config', mountPath: `/etc/kong/${name}`, subPath: name });
  return {
    name: 'kong',
    image: 'kong:3.9',
    env: environment({
      KONG_PREFIX: '/var/run/kong',
      KONG_STATUS_LISTEN: `0.0.0.0:${STATUS_PORT}`,
      KONG_PROXY_ACCESS_LOG: '/dev/stdout',
      KONG_PROXY_ERROR_LOG: '/dev/stderr',
    }),
    ports: [
      { name: 'proxy', containerPort: GATEWAY_PORT },
      { name: 'status', containerPort: STATUS_PORT },
    ],
    readinessProbe: { httpGet: { path: '/status/ready', port: 'status' }, periodSeconds: 5 },
    livenessProbe: {
      httpGet: { path: '/status', port: 'status' },
      initialDelaySeconds: 10,
      periodSeconds: 10,
    },
    lifecycle: {
      preStop: {
        exec: {
          command: ['sh', '-c', `sleep ${PRE_STOP_SECONDS}; kong quit --timeout ${GRACE_SECONDS - 10}`],
        },
      },
    },
    resources: resources('500m', 1024),
    securityContext: CONFINED,
    volumeMounts: [
      SOCKET,
      { name: 'prefix', mountPath: '/var/run/kong' },
      { name: 'tmp', mountPath: '/tmp' },
      file('kong.conf'),
      file('kong.yml'),
    ],
  };
}

/** Counters that gateways and workers share; lost with the pod, unless a Redis of yours takes its place. */
function redis(): object {
  const script = `printf 'requirepass %s\\nsave ""\\n' "$(cat ${SECRETS}/password)" > /tmp/redis.conf && exec redis-server /tmp/redis.conf`;
  const container = {
    name: 'redis',
    image: 'redis:7-alpine',
    command: ['sh', '-c', script],
    ports: [{ name: 'redis', containerPort: 6379 }],
    readinessProbe: { tcpSocket: { port: 'redis' } },
    resources: resources('100m', 256),
    securityContext: CONFINED,
    volumeMounts: [
      { name: 'tmp', mountPath: '/tmp' },
      { name: 'secrets', mountPath: SECRETS, readOnly: true },
    ],
  };
  const spec = {
    replicas: 1,
    selector: { matchLabels: selectorOf('redis') },
    template: {
      metadata: { labels: selectorOf('redis'), annotations: ANNOTATIONS },
      spec: {
        automountServiceAccountToken: false,
        // Their variables look like settings.
        enableServiceLinks: false,
        securityContext: POD_SECURITY,
        containers: [container],
        volumes: [
          { name: 'tmp', emptyDir: { medium: 'Memory' } },
          { name: 'secrets', secret: { secretName: 'redis', defaultMode: 0o440 } },
        ],
      },
    },
  };
  return object('apps/v1', 'Deployment', 'redis', { spec });
}
