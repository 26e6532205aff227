import type { CommonOptions, MeshCommand } from './command.ts';

const ABOUT = `Lists the tools of a service that the caller may use, or tells all of one: what it does, its arguments,
and how to call it. The key of the caller comes from MESH_API_KEY (or MESH_API_KEY_FILE).`;
const NOTE =
  'Exit codes: 0 done; 1 no such service or tool, not allowed, or no gateway; 2 wrong usage. --json: {"tools": […]}, or the tool.';

export interface ToolsOptions extends CommonOptions {
  url?: string;
}

/** `mesh tools <service> [tool]` */
export function toolsCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .argument('<service>')
    .argument('[tool]', 'default: all, one line each')
    .gatewayOption()
    .note(NOTE)
    .run(async (service: string, tool: string | undefined, options: ToolsOptions) =>
      (await import('./tools/show.ts')).showTools(service, tool, options),
    );
}
