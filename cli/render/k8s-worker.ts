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
import { SECRETS, WORKER_PORT, type Workload, workerEnvironment } from './workload.ts';

/** Calls that wait, per worker, beyond which there are more of them. */
const QUEUED = '4';
const SCALE_DOWN_SECONDS = 300;
const GATEWAY = 'gateway';

/** Deployment, disruption budget, network policy, and the autoscaler where the registry gives a range. */
export function kubernetesWorker(workload: Workload): object[] {
  const name = `worker-${workload.label}`;
  return [
    deployment(name, workload),
    ...(workload.scaling ? [autoscaler(name, workload, workload.scaling)] : []),
    disruptionBudget(name),
    networkPolicy(name),
  ];
}

function deployment(name: string, workload: Workload): object {
  const { replicas, scaling } = workload;
  const spec = {
    // With an autoscaler the number is its own.
    ...(scaling ? {} : { replicas }),
    selector: { matchLabels: selectorOf(name) },
    strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
    template: {
      metadata: { labels: selectorOf(name), annotations: ANNOTATIONS },
      spec: pod(name, workload),
    },
  };
  return object('apps/v1', 'Deployment', name, { spec });
}

function pod(name: string, workload: Workload): object {
  const { graceSeconds, memoryMb } = workload;
  const container = {
    name: 'worker',
    image: 'mcp-mesh-worker:latest',
    imagePullPolicy: 'IfNotPresent',
    env: [
      ...CONSUL_AGENT,
      { name: 'MESH_ADVERTISE_ADDRESS', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
      { name: 'MESH_HOST', valueFrom: { fieldRef: { fieldPath: 'metadata.name' } } },
      ...environment(workerEnvironment(workload)),
    ],
    ports: [{ name: 'http', containerPort: WORKER_PORT }],
    // A server may take a minute to start. A worker whose server is down mends it itself: that is no reason to kill it.
    startupProbe: { tcpSocket: { port: 'http' }, periodSeconds: 2, failureThreshold: 60 },
    readinessProbe: { httpGet: { path: '/ready', port: 'http' }, periodSeconds: 5 },
    livenessProbe: { tcpSocket: { port: 'http' }, periodSeconds: 20, failureThreshold: 3 },
    // The drain itself begins with SIGTERM: the worker leaves Consul, answers what is under way, and ends.
    // Nobody finds it by way of endpoints, so a second is enough for those that look at its readiness.
    lifecycle: { preStop: { exec: { command: ['sleep', '1'] } } },
    resources: resources('250m', memoryMb),
    securityContext: CONFINED,
    volumeMounts: [
      { name: 'tmp', mountPath: '/tmp' },
      { name: 'secrets', mountPath: SECRETS, readOnly: true },
      { name: 'config', mountPath: '/app/config/mcp-mesh-registry.yaml', subPath: 'mcp-mesh-registry.yaml' },
    ],
  };
  return {
    automountServiceAccountToken: false,
    // Their variables look like settings.
    enableServiceLinks: false,
    terminationGracePeriodSeconds: graceSeconds + 1,
    securityContext: POD_SECURITY,
    topologySpreadConstraints: [
      {
        maxSkew: 1,
        topologyKey: 'kubernetes.io/hostname',
        whenUnsatisfiable: 'ScheduleAnyway',
        labelSelector: { matchLabels: selectorOf(name) },
      },
    ],
    containers: [container],
    volumes: [
      { name: 'tmp', emptyDir: {} },
      { name: 'secrets', secret: { secretName: name, defaultMode: 0o440 } },
      { name: 'config', configMap: { name: 'mcp-mesh-config' } },
    ],
  };
}

/** On the queue, as the Prometheus Adapter gives it to Kubernetes as an external metric. */
function autoscaler(
  name: string,
  { service }: Workload,
  { min, max }: NonNullable<Workload['scaling']>,
): object {
  const metric = { name: 'mcp_mesh_worker_queue_depth', selector: { matchLabels: { service } } };
  const spec = {
    scaleTargetRef: { apiVersion: 'apps/v1', kind: 'Deployment', name },
    minReplicas: min,
    maxReplicas: max,
    metrics: [
      { type: 'External', external: { metric, target: { type: 'AverageValue', averageValue: QUEUED } } },
    ],
    behavior: { scaleDown: { stabilizationWindowSeconds: SCALE_DOWN_SECONDS } },
  };
  return object('autoscaling/v2', 'HorizontalPodAutoscaler', name, { spec });
}

/** Gateways, the workers of the same service, Prometheus and the nodes (Consul's check, probes) reach it. */
function networkPolicy(name: string): object {
  const from = [
    { podSelector: { matchLabels: selectorOf(GATEWAY) } },
    { podSelector: { matchLabels: selectorOf(name) } },
    { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'monitoring' } } },
    { namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'consul' } } },
  ];
  const spec = {
    podSelector: { matchLabels: selectorOf(name) },
    policyTypes: ['Ingress'],
    ingress: [{ from, ports: [{ port: WORKER_PORT, protocol: 'TCP' }] }],
  };
  return object('networking.k8s.io/v1', 'NetworkPolicy', name, { spec });
}
