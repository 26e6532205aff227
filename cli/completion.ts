import { Argument } from 'commander';
import { type CommonOptions, EXIT, type MeshCommand } from './command.ts';
import { answer } from './output.ts';
import type { Entry } from './program.ts';

const ABOUT = `Prints a script that makes a shell complete commands, options, and the names of services, instances and
tools.

  bash  source <(mesh completion bash)                 # in ~/.bashrc
  zsh   mesh completion zsh > ~/.zfunc/_mesh           # a folder of $fpath
  fish  mesh completion fish > ~/.config/fish/completions/mesh.fish`;

const SHELLS = ['bash', 'zsh', 'fish'] as const;

/** `mesh completion <shell>` */
export function completionCommand(command: MeshCommand): void {
  command
    .about(ABOUT)
    .addArgument(new Argument('<shell>').choices(SHELLS))
    .note('Exit codes: 0 done, 2 wrong usage. --json: {"script"}.')
    .run(async (shell: (typeof SHELLS)[number], { json }: CommonOptions) => {
      const { SCRIPTS } = await import('./completion/scripts.ts');
      answer(json, { script: SCRIPTS[shell] }, SCRIPTS[shell]);
      return EXIT.ok;
    });
}

/**
 * `mesh __complete -- <word>…`: what the last word may become, one to a line, each with a tab and a few words. The words
 * before it are those behind `mesh`. Whatever is wrong, nothing is printed but what is known, and the exit code is 0.
 */
export function completeCommand(commands: Readonly<Record<string, Entry>>): (command: MeshCommand) => void {
  return command => {
    command
      .argument('[words...]')
      .allowUnknownOption()
      .helpOption(false)
      .action(async (words: string[]) => {
        const { printCandidates } = await import('./completion/candidates.ts');
        await printCandidates(commands, words);
      });
  };
}
