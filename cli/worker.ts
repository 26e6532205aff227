import { currentWorker } from '../workers/fleet/bundle.ts';
import { compileCacheOf, NODE_FLAGS } from '../workers/node-flags.ts';

/**
 * `npm run worker`: one worker as a fleet starts its own, bundled and with Node's options for many. This process becomes
 * it, so that nothing stands between it and the signals and the terminal.
 */
if (!process.execve) throw new Error('this system has no execve; start workers by `npm start`');
const program = await currentWorker();
process.execve(process.execPath, [process.execPath, ...NODE_FLAGS, program, ...process.argv.slice(2)], {
  ...compileCacheOf(program),
  ...process.env,
});
