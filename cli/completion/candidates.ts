import type { Command, Option } from 'commander';
import { createProgram, type Entry } from '../program.ts';
import { namesFor } from './names.ts';

interface Candidate {
  word: string;
  about: string;
}

/** A shell puts them into the command line as they are. */
const HARMLESS = /^[\w.@:#/+-]+$/;
/** Whoever pressed the key waits. */
const DEADLINE_MS = 2000;

/** Prints what the last word may become; never throws, and ends the process when it takes too long. */
export async function printCandidates(
  commands: Readonly<Record<string, Entry>>,
  words: readonly string[],
): Promise<void> {
  const deadline = setTimeout(() => process.exit(0), DEADLINE_MS);
  try {
    const current = words.at(-1) ?? '';
    const found = await candidatesFor(commands, splitAssignments(words));
    const typed = current === '=' ? '' : current;
    const fitting = found.filter(({ word }) => word.startsWith(typed) && HARMLESS.test(word));
    process.stdout.write(fitting.map(({ word, about }) => `${word}\t${firstLine(about)}\n`).join(''));
  } catch {
    // No candidates are better than a message in the middle of a command line.
  } finally {
    clearTimeout(deadline);
  }
}

/** bash cuts `--url=x` into three words. */
function splitAssignments(words: readonly string[]): string[] {
  const last = words.at(-1);
  return [...words.slice(0, -1).filter(word => word !== '='), ...(last === '=' ? [''] : [last ?? ''])];
}

async function candidatesFor(
  commands: Readonly<Record<string, Entry>>,
  words: readonly string[],
): Promise<Candidate[]> {
  const before = words.slice(0, -1);
  const current = words.at(-1) ?? '';
  const program = await createProgram(commands, before[0]);
  const { command, rest } = descend(program, before);
  const last = rest.at(-1);
  const option = last === undefined ? undefined : findOption(command, last);
  if (option?.required) return (option.argChoices ?? []).map(word => ({ word, about: '' }));
  if (current.startsWith('-')) return optionsOf(command);
  if (command.commands.length > 0) return commandsOf(command);
  const { operands, options } = readGiven(command, rest);
  const { registeredArguments } = command;
  const argument = registeredArguments[operands.length];
  if (!argument) return optionsOf(command);
  const names = argument.argChoices ?? (await namesFor(argument.name(), { operands, options }));
  return names.map(word => ({ word, about: '' }));
}

/** The command that the words lead to, and those behind its name. */
function descend(program: Command, words: readonly string[]): { command: Command; rest: string[] } {
  let command = program;
  let depth = 0;
  for (const word of words) {
    const next = command.commands.find(one => one.name() === word);
    if (!next) break;
    command = next;
    depth += 1;
  }
  return { command, rest: words.slice(depth) };
}

/** What has been given already; what is not understood is passed over. */
function readGiven(
  command: Command,
  words: readonly string[],
): { operands: string[]; options: Record<string, string> } {
  const operands: string[] = [];
  const options: Record<string, string> = {};
  for (let i = 0; i < words.length; i += 1) {
    const word = words[i] ?? '';
    const option = findOption(command, word);
    if (option?.required) {
      i += 1;
      options[option.attributeName()] = words[i] ?? '';
    } else if (!word.startsWith('-')) operands.push(word);
  }
  return { operands, options };
}

function findOption(command: Command, flag: string): Option | undefined {
  return command.options.find(({ long, short }) => long === flag || short === flag);
}

function commandsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleCommands(command)
    .map(one => ({ word: one.name(), about: one.summary() || one.description() }));
}

function optionsOf(command: Command): Candidate[] {
  return command
    .createHelp()
    .visibleOptions(command)
    .flatMap(({ long, description }) => (long ? [{ word: long, about: description }] : []));
}

function firstLine(text: string): string {
  return text.split('\n', 1)[0]?.replaceAll('\t', ' ') ?? '';
}
