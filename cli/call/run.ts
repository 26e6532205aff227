import { readFileSync } from 'node:fs';
import { text as readAll } from 'node:stream/consumers';
import { isObject } from '../../mesh/jsonrpc.ts';
import type { CallOptions } from '../call.ts';
import { CommandError, EXIT, UsageError } from '../command.ts';
import { connectGateway, type Gateway } from '../gateway.ts';
import { findTool, listTools, readTool } from '../tools/list.ts';
import { buildArguments } from './arguments.ts';
import { describeResult, forTerminal } from './content.ts';
import { followProgress } from './progress.ts';
import { awaitResult } from './result.ts';

/** The gateway's own time-out is the one that tells more: ours is for when it does not answer at all. */
const GRACE_MS = 5000;

/** Calls a tool, prints its answer and gives the exit code. @throws CommandError, UsageError */
export async function runCall(service: string, tool: string, options: CallOptions): Promise<number> {
  // Until here Ctrl-C ends the process, as it must while stdin is waited for.
  const given = options.args === undefined ? undefined : await readObject(options.args);
  const cancelled = new AbortController();
  process.once('SIGINT', () => cancelled.abort());
  const timeoutMs = options.timeout === undefined ? undefined : Math.ceil(options.timeout * 1000);
  const late = timeoutMs === undefined ? undefined : AbortSignal.timeout(timeoutMs + GRACE_MS);
  const signal = late ? AbortSignal.any([cancelled.signal, late]) : cancelled.signal;
  try {
    const gateway = connectGateway(options.url);
    const argumentsText = given ?? (await readArguments(gateway, service, tool, options.arg ?? [], signal));
    const limit = timeoutMs === undefined ? '' : `,"timeout_ms":${timeoutMs}`;
    const body = `{"command":${JSON.stringify(tool)},"params":${argumentsText}${limit}}`;
    const follow = options.progress ?? (process.stderr.isTTY && !options.json);
    const reply = await gateway.send(`/${encodeURIComponent(service)}/execute`, {
      body,
      signal,
      ...(follow ? { accept: 'text/event-stream, application/json;q=0.5' } : {}),
    });
    return print(await awaitResult(reply, followProgress(process.stderr)), options);
  } catch (error) {
    if (cancelled.signal.aborted) {
      throw new CommandError('cancelled', {
        facts: { code: 'cancelled' },
        exitCode: EXIT.cancelled,
        cause: error,
      });
    }
    if (!late?.aborted) throw error;
    throw new CommandError(`no answer within ${options.timeout} s`, {
      facts: { code: 'timeout' },
      cause: error,
    });
  }
}

/** The arguments of `--arg` as JSON text, by what the tool says of them. */
async function readArguments(
  gateway: Gateway,
  service: string,
  tool: string,
  pairs: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  // A method such as resources/list is in no list of tools.
  if (pairs.length === 0 && tool.includes('/')) return '{}';
  const found = readTool(findTool(await listTools(gateway, service, signal), service, tool));
  return JSON.stringify(buildArguments(pairs, found));
}

/** As it was written: numbers keep all their digits. */
async function readObject(given: string): Promise<string> {
  const text =
    given === '-' ? await readAll(process.stdin) : given.startsWith('@') ? readFile(given.slice(1)) : given;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new UsageError(`--args: no JSON: ${(cause as Error).message}`, { cause });
  }
  if (!isObject(value)) throw new UsageError('--args: it must be a JSON object, such as {"message":"hi"}');
  return text;
}

function readFile(path: string): string {
  try {
    return readFileSync(path, 'utf8');
  } catch (cause) {
    throw new UsageError(`--args: cannot read ${path}: ${(cause as Error).message}`, { cause });
  }
}

function print(text: string, { json }: CallOptions): number {
  const result: unknown = JSON.parse(text);
  const isError = isObject(result) && result.isError === true;
  if (json) process.stdout.write(`${text.trim()}\n`);
  else {
    const shown = describeResult(result);
    process.stdout.write(process.stdout.isTTY ? forTerminal(shown) : shown);
    if (isError) process.stderr.write('mesh: the tool says that it failed\n');
  }
  return isError ? EXIT.toolError : EXIT.ok;
}
