import { createServer } from 'node:net';

type Range = readonly [first: number, last: number];

interface PortsOptions {
  /** Address that is listened at; undefined: not known here, so a port that any address uses is taken. */
  address: string | undefined;
}

/** The ports of one service's workers: one belongs to one worker, from its choice until it is given back. */
export class Ports {
  readonly #address: string | undefined;
  readonly #taken = new Set<number>();

  constructor({ address }: PortsOptions) {
    this.#address = address;
  }

  /**
   * A port that nobody listens at: `wanted` if it can be had, else one of the range, else (no range) 0, which lets the
   * system choose.
   * @throws Error when all ports of the range are in use
   */
  async take(wanted: number, range: Range | undefined): Promise<number> {
    for (const port of candidates(wanted, range)) {
      if (this.#taken.has(port)) continue;
      this.#taken.add(port);
      if (await isFree(port, this.#address)) return port;
      this.#taken.delete(port);
    }
    if (!range) return 0;
    const [first, last] = range;
    throw new Error(
      `no port is free from ${first} to ${last}: end what holds them, or widen port_range in the registry`,
    );
  }

  /** A port that the system chose. */
  keep(port: number): void {
    this.#taken.add(port);
  }

  giveBack(port: number): void {
    this.#taken.delete(port);
  }
}

function candidates(wanted: number, range: Range | undefined): number[] {
  if (!range) return wanted === 0 ? [] : [wanted];
  const [first, last] = range;
  const all = Array.from({ length: last - first + 1 }, (_, index) => first + index);
  return wanted >= first && wanted <= last ? [wanted, ...all] : all;
}

function isFree(port: number, address: string | undefined): Promise<boolean> {
  return new Promise(resolve => {
    const probe = createServer();
    // Whatever else is wrong with it, the worker says when it tries.
    probe.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'EADDRINUSE'));
    probe.listen({ port, ...(address === undefined ? {} : { host: address }), exclusive: true }, () =>
      probe.close(() => resolve(true)),
    );
  });
}
