import type { CommonOptions, MeshCommand } from './command.ts';

const ABOUT = `Checks the registry file and the access policy, starts nothing and asks nobody. Faults keep a file from
being used: all of them are told, with file, line and field. Warnings are what is probably not meant: a command that
is not there, a variable that is not set here, a rule for a service that the registry does not have, an expired key.`;
const NOTE = `Exit codes: 0 no fault, 1 a fault, 2 wrong usage. --json: {"ok", "faults": [{"file", "line", "text"}], "warnings": […],
"registry", "access"}.`;

export interface ValidateOptions extends CommonOptions {
  registry?: string;
  access?: string;
}

/** `mesh validate` */
export function validateCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .registryOption()
    .option('--access <file>', 'the access policy (default: $MESH_ACCESS_POLICY or config/access.yaml)')
    .note(NOTE)
    .run(async (options: ValidateOptions) => (await import('./validate/run.ts')).validate(options));
}
