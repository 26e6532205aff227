import { Command, type ErrorOptions, type Option } from 'commander';
import { readUrl } from './option-values.ts';
import { UsageError } from './usage-error.ts';

export { UsageError };

/** Exit codes: done; could not be done; the command line makes no sense; the tool itself says that it failed; Ctrl-C. */
export const EXIT = { ok: 0, failed: 1, usage: 2, toolError: 3, cancelled: 130 } as const;

interface FailureOptions {
  /** Members of `error` beside `message` (`--json`). */
  facts?: Readonly<Record<string, unknown>>;
  /** Lines that help people; programs are not told. */
  hints?: readonly string[];
  exitCode?: number;
  cause?: unknown;
}

/** It could not be done, and there is more to tell than a message. */
export class CommandError extends Error {
  override name = 'CommandError';
  readonly facts: Readonly<Record<string, unknown>>;
  readonly hints: readonly string[];
  readonly exitCode: number;

  constructor(
    message: string,
    { facts = {}, hints = [], exitCode = EXIT.failed, cause }: FailureOptions = {},
  ) {
    super(message, { cause });
    this.facts = facts;
    this.hints = hints;
    this.exitCode = exitCode;
  }
}

/** What every command may be given. */
export interface CommonOptions {
  json?: boolean;
}

/** A command of the program: commander's, with our words for what is wrong and `--json` on everything. */
export class MeshCommand extends Command {
  override createCommand(name?: string): MeshCommand {
    return new MeshCommand(name);
  }

  /** What it does: gets the arguments and then the options, and gives the exit code. To be called last. */
  run<A extends unknown[]>(action: (...args: A) => number | Promise<number>): this {
    this.option('--json', 'print one JSON document, of failures too');
    return this.action(async (...args: unknown[]) => {
      // The last one is the command itself.
      process.exitCode = await action(...(args.slice(0, -1) as A));
    });
  }

  /** Its description; lines are joined, and broken by the terminal's width, but where one is empty or indented. */
  about(text: string): this {
    return this.description(text.replaceAll(/(?<=\S)\n(?=\S)/g, ' '));
  }

  /** An option that may stand several times; undefined when it never does. */
  repeatable(flags: string, description: string): this {
    return this.option(flags, description, (value: string, previous: string[] | undefined) => [
      ...(previous ?? []),
      value,
    ]);
  }

  /** `--registry <file>`. */
  registryOption(whose = 'the registry file'): this {
    return this.option(
      '--registry <file>',
      `${whose} (default: $MESH_REGISTRY or config/mcp-mesh-registry.yaml)`,
    );
  }

  /** `--url <url>` of the gateway that is called. */
  gatewayOption(): this {
    return this.option(
      '--url <url>',
      'the gateway (default: $MESH_URL or http://127.0.0.1:$MESH_PORT, 10010)',
      readUrl('--url'),
    );
  }

  /** Says under the help which exit codes there are, and what else is worth telling. */
  note(text: string): this {
    return this.addHelpText('after', `\n${text}`);
  }

  /** A forgotten value must not swallow the option after it. */
  override addOption(option: Option): this {
    const { parseArg } = option;
    if (option.required) {
      option.argParser((value: string, previous: unknown) => {
        if (/^--?[A-Za-z]/.test(value))
          throw new UsageError(`${option.flags}: the value is missing before ${value}`);
        return parseArg ? parseArg(value, previous) : value;
      });
    }
    return super.addOption(option);
  }

  /** @throws UsageError in place of printing and exiting */
  override error(message: string, { code }: ErrorOptions = {}): never {
    throw new UsageError(this.#reword(message, code));
  }

  #reword(message: string, code: string | undefined): string {
    if (code === 'commander.missingArgument') return `<${/'(.*)'/.exec(message)?.[1]}> is missing`;
    if (code === 'commander.excessArguments')
      return `"${this.args[this.registeredArguments.length]}" is one argument too many`;
    const text = message
      .replace(/^error: /, '')
      .replace(/\n\(Did you mean one of (.*)\?\)$/, '; did you mean one of $1?')
      .replace(/\n\(Did you mean (.*)\?\)$/, '; did you mean "$1"?');
    if (code === 'commander.unknownOption') return text.replace(/'([^']*)'/, '$1');
    const words = text.replace(/'([^']*)'/g, '"$1"');
    return code === 'commander.unknownCommand' ? `${words}; \`${this.#path()} --help\` lists them` : words;
  }

  #path(): string {
    return this.parent instanceof MeshCommand ? `${this.parent.#path()} ${this.name()}` : this.name();
  }
}
