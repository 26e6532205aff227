import type { Block } from './hcl.ts';
import { IMAGE_USER, SECRETS } from './workload.ts';

/** What the groups of the job share. */

export const UPDATE: Block = {
  type: 'update',
  attributes: { max_parallel: 1, health_check: 'task_states', min_healthy_time: '20s', auto_revert: true },
};

/** Of the repository, which lies at the same place on each client. */
export function mount(source: string, target: string) {
  return { type: 'bind', source: `\${var.config}${source}`, target, readonly: true };
}

export function scratch(target: string) {
  return { type: 'tmpfs', target };
}

/** Nomad mounts a task's secrets at /secrets, in memory. */
export function inSecrets(environment: Record<string, string>): Record<string, string> {
  return Object.fromEntries(
    Object.entries(environment).map(([name, value]) => [name, value.replace(SECRETS, '/secrets')]),
  );
}

/** From a Nomad variable, by the name of the file: `nomad var put nomad/jobs/mcp-mesh/<group> …`. */
export function secretFile(group: string, name: string): Block {
  const data = `{{ with nomadVar "nomad/jobs/mcp-mesh/${group}" }}{{ index . "${name.replaceAll('-', '_')}" }}{{ end }}`;
  return {
    type: 'template',
    attributes: { data, destination: `secrets/${name}`, perms: '0400', uid: IMAGE_USER, gid: IMAGE_USER },
  };
}
