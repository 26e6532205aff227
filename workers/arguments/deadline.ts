import { type Context, createContext, Script } from 'node:vm';

/** A context of its own only because `timeout` belongs to the running of a script; what runs is ours. */
let context: Context | undefined;
let script: Script | undefined;

/**
 * Runs a function and breaks it off when it takes too long, in the midst of a regular expression, too. Costs 0.15 ms.
 * @throws Error with the code `ERR_SCRIPT_EXECUTION_TIMEOUT`
 */
export function runWithin<T>(timeoutMs: number, run: () => T): T {
  context ??= createContext({});
  script ??= new Script('run()');
  context.run = run;
  try {
    return script.runInContext(context, { timeout: timeoutMs }) as T;
  } finally {
    // It holds what it looked at.
    context.run = undefined;
  }
}
