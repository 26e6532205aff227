import { kubernetesGateway } from './k8s-gateway.ts';
import { NAMESPACE, object } from './k8s-object.ts';
import { kubernetesWorker } from './k8s-worker.ts';
import type { Files, Workload } from './workload.ts';
import { origin, toYaml } from './yaml.ts';

const FOLDER = 'config/deploy/k8s';

/** A file for the gateway and one for each service; together one stream of documents. */
export function renderKubernetes(workloads: readonly Workload[]): Files {
  // Pods that are not confined are refused.
  const labels = { 'pod-security.kubernetes.io/enforce': 'restricted' };
  const namespace = object('v1', 'Namespace', NAMESPACE, { metadata: { labels } });
  return new Map([
    [`${FOLDER}/gateway.yaml`, stream([namespace, ...kubernetesGateway()])],
    ...workloads.map((workload): [string, string] => [
      `${FOLDER}/worker-${workload.label}.yaml`,
      stream(kubernetesWorker(workload)),
    ]),
  ]);
}

/** Each begins a document, so that files can be put together. */
function stream(objects: readonly object[]): string {
  return `# ${origin('k8s')}\n${objects.map(each => `---\n${toYaml('', each)}`).join('')}`;
}
