import { once } from 'node:events';
import { MeshError } from '../../mesh/errors.ts';
import { forLineReaders } from '../../mesh/json-text.ts';
import { errorText } from '../../mesh/jsonrpc.ts';
import { createLineReader } from '../../workers/line-reader.ts';
import { Bridge } from './bridge.ts';
import type { Endpoint } from './link.ts';

interface StdioOptions {
  endpoint: Endpoint;
  tell(text: string): void;
  waitMs: number;
}

const LINE_MAX_BYTES = 64 * 1024 * 1024;
/** Below the two seconds that clients give a server whose stdin they have closed, the DELETE included. */
const GRACE_MS = 800;

/** Serves the client on stdin and stdout; resolves when it has gone and its session is ended. */
export async function serveStdio({ endpoint, tell, waitMs }: StdioOptions): Promise<void> {
  const { stdin, stdout } = process;
  const gone = Promise.withResolvers<number>();
  const bridge = new Bridge({
    endpoint,
    tell,
    waitMs,
    async write(line) {
      if (!stdout.writable || stdout.write(`${forLineReaders(line)}\n`)) return;
      await Promise.race([once(stdout, 'drain'), gone.promise]);
    },
  });
  const read = createLineReader({
    maxBytes: LINE_MAX_BYTES,
    onLine: text => {
      const line = text.toString();
      if (line.trim() !== '') bridge.receive(line);
    },
    onTooLong: () => {
      const detail = `a line is longer than ${LINE_MAX_BYTES} bytes`;
      stdout.write(`${errorText('null', new MeshError('too_large', { detail }))}\n`);
    },
  });
  stdin.on('data', read);
  stdin.on('end', () => gone.resolve(GRACE_MS));
  stdin.on('error', () => gone.resolve(0));
  stdout.on('close', () => gone.resolve(0));
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => gone.resolve(0));
  await bridge.close(await gone.promise);
  stdin.destroy();
}
