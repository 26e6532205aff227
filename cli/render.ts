import type { MeshCommand } from './command.ts';
import { RENDER_KINDS, type RenderOptions } from './render/kinds.ts';

const ABOUT = `Prints what runs the services of the registry in containers: for Docker Compose, for Nomad or for Kubernetes. With --dir the files are written below a folder. \`secrets\` makes the keys that all three hand to the containers by file.`;
const NOTE = `"compose" is docker-compose.yml and what it mounts; "k8s" is one stream for \`kubectl apply -f -\`; "consul" are ACL policies.
"secrets" needs --dir, and makes only what is not there yet: run it again after adding a service.

Exit codes: 0 done; 1 the registry cannot be used, or a file cannot be written; 2 wrong usage.`;

/** `mesh render compose|nomad|k8s|consul|secrets` */
export function renderCommand(command: MeshCommand): void {
  command
    .description(ABOUT)
    .argument('<kind>', RENDER_KINDS.join(', '))
    .registryOption()
    .option('--dir <folder>', 'write files below this folder; that of the repository is .')
    .note(NOTE)
    .run(async (kind: string, options: RenderOptions) => {
      const { render } = await import('./render/run.ts');
      return render(kind, options);
    });
}
