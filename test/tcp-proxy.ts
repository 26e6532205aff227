import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * What a proxy does to its connections, those that are open included.
 * - `pass`: nothing
 * - `drop`: the bytes of both directions vanish, and so do ends and resets: a network that was parted
 * - `drop-up`, `drop-down`: the same in one direction only (half-open); up is towards the target
 * - `reset`: RST, new connections right after they were accepted
 * - `cut`: what goes up arrives; the first bytes that come down become an RST: the answer is lost, the call is not
 * - `refuse`: nobody listens; open connections get an RST
 * - `{ delayMs }`: every chunk and every end comes so much later, in its order
 */
export type Fault =
  | 'pass'
  | 'drop'
  | 'drop-up'
  | 'drop-down'
  | 'reset'
  | 'cut'
  | 'refuse'
  | { delayMs: number };

type Direction = 'up' | 'down';

export interface TcpProxy {
  port: number;
  /** How often a fault has done something since it was set: bytes or ends lost, connections reset. */
  hits(): number;
  /** Resolves when it holds for new connections. What lost bytes before is reset: no program could read on. */
  set(fault: Fault): Promise<void>;
  close(): void;
}

interface Pair {
  client: Socket;
  target: Socket;
  /** A fault has done something to it. */
  hit(): void;
  lossy: boolean;
}

const HOST = '127.0.0.1';
const PROBE_MS = 300;

/** A TCP proxy on a free port of 127.0.0.1 before a port of the same address. */
export async function startTcpProxy(targetPort: number): Promise<TcpProxy> {
  const pairs = new Set<Pair>();
  let fault: Fault = 'pass';
  let hits = 0;
  let server: Server | undefined;

  const open = (client: Socket) => {
    if (fault === 'reset') {
      hits += 1;
      abort(client.on('error', () => {}));
      return;
    }
    const target = connect({ host: HOST, port: targetPort, allowHalfOpen: true, noDelay: true });
    const pair = { client, target, lossy: false, hit: () => (hits += 1) };
    pairs.add(pair);
    carry(pair, 'up', () => fault);
    carry(pair, 'down', () => fault);
    const forget = () => {
      if (client.destroyed && target.destroyed) pairs.delete(pair);
    };
    client.once('close', forget);
    target.once('close', forget);
  };
  const listen = async (port: number): Promise<number> => {
    server = createServer({ allowHalfOpen: true, noDelay: true }, open).listen(port, HOST);
    await once(server, 'listening');
    return (server.address() as { port: number }).port;
  };
  /** From now on nobody can connect; the port is free. */
  const unlisten = () => {
    server?.close();
    server = undefined;
  };
  const resetAll = (which: (pair: Pair) => boolean) => {
    for (const pair of [...pairs].filter(which)) reset(pair);
  };
  const port = await listen(0);

  return {
    port,
    hits: () => hits,
    async set(next) {
      fault = next;
      hits = 0;
      resetAll(pair => pair.lossy || next === 'reset' || next === 'refuse');
      if (next === 'refuse') unlisten();
      else if (!server) await listen(port);
    },
    close() {
      unlisten();
      resetAll(() => true);
    },
  };
}

/**
 * Makes a free port of 127.0.0.1 one where attempts to connect get no answer at all, as from a host that is gone: its queue of
 * connections is full and its owner is stopped (Linux drops what does not fit).
 */
export async function startBlackHole(port: number): Promise<{ close(): Promise<void> }> {
  const program = `const server = require('net').createServer();
    server.listen({ port: ${port}, host: '${HOST}', backlog: 1 }, () => console.log('listens'));`;
  const child = spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] });
  // A stopped process notices nothing, not even our end.
  const killOnExit = () => child.kill('SIGKILL');
  process.once('exit', killOnExit);
  await once(child.stdout, 'data');
  child.kill('SIGSTOP');
  const sockets: Socket[] = [];
  while (await takes(port, sockets));
  return {
    async close() {
      process.off('exit', killOnExit);
      for (const socket of sockets) socket.destroy();
      child.kill('SIGKILL');
      await once(child, 'exit');
    },
  };
}

/** Carries one direction, and what ends it, as the fault of the moment wants. */
function carry(pair: Pair, direction: Direction, faultNow: () => Fault): void {
  const [from, to] = direction === 'up' ? [pair.client, pair.target] : [pair.target, pair.client];
  let last: Promise<void> | undefined;
  /** In order: what comes while something is late waits for it. */
  const pass = (step: () => void) => {
    const fault = faultNow();
    const delayMs = typeof fault === 'object' ? fault.delayMs : 0;
    if (!last && delayMs === 0) {
      step();
      return;
    }
    const due = new Promise<void>(resolve => setTimeout(resolve, delayMs));
    const mine: Promise<void> = Promise.all([last, due]).then(() => {
      step();
      if (last === mine) last = undefined;
    });
    last = mine;
  };

  from.on('data', chunk => {
    if (loses(faultNow(), direction)) lose(pair);
    else if (faultNow() === 'cut' && direction === 'down') reset(pair);
    else {
      pass(() => {
        if (to.destroyed || to.write(chunk) || from.isPaused()) return;
        from.pause();
        to.once('drain', () => from.resume());
      });
    }
  });
  from.on('end', () => {
    if (loses(faultNow(), direction)) lose(pair);
    else pass(() => to.end());
  });
  from.on('error', () => {
    if (loses(faultNow(), direction)) lose(pair);
    else pass(() => abort(to));
  });
}

function loses(fault: Fault, direction: Direction): boolean {
  return fault === 'drop' || fault === `drop-${direction}`;
}

function lose(pair: Pair): void {
  pair.lossy = true;
  pair.hit();
}

function reset({ client, target, hit }: Pair): void {
  hit();
  for (const socket of [client, target]) abort(socket);
}

/** RST. Node 24 leaks a socket that is reset while its FIN waits to be sent (EINVAL), and spins on it at exit. */
function abort(socket: Socket): void {
  if (socket.writableEnded && !socket.writableFinished) socket.destroy();
  else socket.resetAndDestroy();
}

function takes(port: number, sockets: Socket[]): Promise<boolean> {
  return new Promise(resolve => {
    const socket = connect({ host: HOST, port });
    sockets.push(socket.on('error', () => resolve(false)));
    socket.once('connect', () => {
      clearTimeout(late);
      resolve(true);
    });
    const late = setTimeout(() => resolve(false), PROBE_MS);
  });
}
