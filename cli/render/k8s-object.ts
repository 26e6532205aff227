/** Parts that Kubernetes objects of gateway and workers share. */

export const NAMESPACE = 'mcp-mesh';

interface Fields {
  metadata?: object;
  [field: string]: unknown;
}

/** One object, in our namespace unless it is that. */
export function object(apiVersion: string, kind: string, name: string, fields: Fields): object {
  const { metadata = {}, ...rest } = fields;
  const namespace = kind === 'Namespace' ? {} : { namespace: NAMESPACE };
  return { apiVersion, kind, metadata: { name, ...namespace, ...metadata }, ...rest };
}

/** Which pods: those of one service, or the gateway. */
export function selectorOf(component: string): Record<string, string> {
  return { 'app.kubernetes.io/part-of': NAMESPACE, 'app.kubernetes.io/component': component };
}

export const POD_SECURITY = {
  runAsNonRoot: true,
  runAsUser: 1000,
  runAsGroup: 1000,
  fsGroup: 1000,
  seccompProfile: { type: 'RuntimeDefault' },
};

export const CONFINED = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  capabilities: { drop: ['ALL'] },
};

/** The Consul agent of the pod's node: an instance stays with the agent that it was registered at. */
export const CONSUL_AGENT = [
  { name: 'HOST_IP', valueFrom: { fieldRef: { fieldPath: 'status.hostIP' } } },
  { name: 'CONSUL_HTTP_ADDR', value: '$(HOST_IP):8500' },
];

export function environment(values: Readonly<Record<string, string>>): object[] {
  return Object.entries(values).map(([name, value]) => ({ name, value }));
}

/** Its containers say themselves what they are in Consul: Consul's own injection is not to say it again. */
export const ANNOTATIONS = { 'consul.hashicorp.com/connect-inject': 'false' };

export function resources(cpu: string, memoryMb: number): object {
  return { requests: { cpu, memory: `${memoryMb}Mi` }, limits: { memory: `${memoryMb}Mi` } };
}

/** At most one of them may be away when nodes are drained. */
export function disruptionBudget(name: string): object {
  const spec = { maxUnavailable: 1, selector: { matchLabels: selectorOf(name) } };
  return object('policy/v1', 'PodDisruptionBudget', name, { spec });
}
