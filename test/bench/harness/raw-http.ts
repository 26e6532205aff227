import { once } from 'node:events';
import { connect, type Socket } from 'node:net';

export interface RawAnswer {
  status: number;
  /** Status line and headers. */
  head: string;
  body: Buffer;
}

interface Pending {
  resolve(answer: RawAnswer): void;
  reject(error: Error): void;
}

const HEAD_END = Buffer.from('\r\n\r\n');
const LAST_CHUNK = Buffer.from('0\r\n\r\n');

/**
 * One kept connection with one request at a time. node:http's client would take more of the processor than the servers
 * that are measured.
 */
export class RawConnection {
  readonly #socket: Socket;
  #pending: Pending | undefined;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #head: string | undefined;
  /** Bytes of the whole answer; undefined: it is chunked. */
  #total: number | undefined;

  static async open({ hostname, port }: URL): Promise<RawConnection> {
    const socket = connect({ host: hostname, port: Number(port), noDelay: true });
    await once(socket, 'connect');
    return new RawConnection(socket);
  }

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', chunk => this.#read(chunk));
    socket.on('error', error => this.#fail(error));
    socket.on('close', () => this.#fail(new Error('the connection was closed')));
  }

  /** Sends a whole request, head and body. */
  send(...parts: readonly Buffer[]): Promise<RawAnswer> {
    return new Promise((resolve, reject) => {
      this.#pending = { resolve, reject };
      this.#socket.cork();
      for (const part of parts) this.#socket.write(part);
      this.#socket.uncork();
    });
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#head === undefined) {
      const all = this.#joined();
      const end = all.indexOf(HEAD_END);
      if (end < 0) return;
      this.#head = all.toString('latin1', 0, end + HEAD_END.length);
      const length = /^content-length: (\d+)/im.exec(this.#head)?.[1];
      this.#total = length === undefined ? undefined : this.#head.length + Number(length);
    }
    const whole =
      this.#total === undefined
        ? this.#joined().subarray(-LAST_CHUNK.length).equals(LAST_CHUNK)
        : this.#bytes >= this.#total;
    if (whole) this.#settle(this.#head);
  }

  #joined(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #settle(head: string): void {
    const raw = this.#joined().subarray(head.length);
    const body = this.#total === undefined ? unchunk(raw) : raw;
    const pending = this.#pending;
    this.#chunks = [];
    this.#bytes = 0;
    this.#head = undefined;
    this.#pending = undefined;
    pending?.resolve({ status: Number(head.slice(9, 12)), head, body });
  }

  #fail(error: Error): void {
    this.#pending?.reject(error);
    this.#pending = undefined;
  }
}

function unchunk(raw: Buffer): Buffer {
  const parts: Buffer[] = [];
  for (let at = 0; ; ) {
    const end = raw.indexOf('\r\n', at);
    const length = Number.parseInt(raw.toString('latin1', at, end), 16);
    if (!(length > 0)) return Buffer.concat(parts);
    parts.push(raw.subarray(end + 2, end + 2 + length));
    at = end + 2 + length + 2;
  }
}
