import { connect, type Socket } from 'node:net';
import { decodeMultiStream, encode } from '@msgpack/msgpack';

/** Kong's lua_socket_pool_size is 256; a stand-in needs fewer. */
const MAX_IDLE = 32;

/** The plugin server could not be asked, did not answer in time, or answered with an error. */
export class RpcError extends Error {
  override name = 'RpcError';
}

interface Call {
  id: number;
  resolve(result: unknown): void;
  reject(error: RpcError): void;
}

/** Kong's side of the MessagePack-RPC: a pool of Unix-socket connections with one message in flight on each. */
export class PluginRpc {
  readonly #path: string;
  readonly #timeoutMs: number;
  readonly #idle: Connection[] = [];
  readonly #all = new Set<Connection>();
  #lastId = 0;

  constructor(path: string, timeoutMs: number) {
    this.#path = path;
    this.#timeoutMs = timeoutMs;
  }

  /** Calls `method` with its one argument. Rejects with RpcError; after a time-out the connection is closed. */
  async call(method: string, argument: unknown): Promise<unknown> {
    const connection = this.#idle.pop() ?? this.#open();
    this.#lastId += 1;
    const result = await connection.call(this.#lastId, method, argument, this.#timeoutMs);
    if (connection.usable && this.#idle.length < MAX_IDLE) this.#idle.push(connection);
    else connection.close();
    return result;
  }

  close(): void {
    for (const connection of this.#all) connection.close();
  }

  #open(): Connection {
    const connection = new Connection(this.#path, () => {
      this.#all.delete(connection);
      const place = this.#idle.indexOf(connection);
      if (place >= 0) this.#idle.splice(place, 1);
    });
    this.#all.add(connection);
    return connection;
  }
}

class Connection {
  readonly #socket: Socket;
  #call: Call | undefined;

  constructor(path: string, onClose: () => void) {
    this.#socket = connect(path);
    let reason = 'the plugin server closed the connection';
    this.#socket.on('error', error => {
      reason = error.message;
    });
    this.#socket.once('close', () => {
      onClose();
      this.#settle()?.reject(new RpcError(reason));
    });
    void this.#read();
  }

  get usable(): boolean {
    return !this.#socket.destroyed && this.#call === undefined;
  }

  async call(id: number, method: string, argument: unknown, timeoutMs: number): Promise<unknown> {
    const bytes = encode([0, id, method, [argument]], { ignoreUndefined: true });
    let timer: NodeJS.Timeout | undefined;
    try {
      return await new Promise((resolve, reject) => {
        this.#call = { id, resolve, reject };
        timer = setTimeout(() => {
          this.#settle()?.reject(new RpcError(`timeout: ${method} unanswered for ${timeoutMs} ms`));
          this.close();
        }, timeoutMs);
        this.#socket.write(bytes);
      });
    } finally {
      clearTimeout(timer);
    }
  }

  close(): void {
    this.#socket.destroy();
  }

  async #read(): Promise<void> {
    try {
      for await (const message of decodeMultiStream(this.#socket)) {
        const [type, id, error, result] = Array.isArray(message) ? message : [];
        const call = this.#settle();
        if (type !== 1 || call === undefined || call.id !== id) break;
        if (error === null || error === undefined) call.resolve(result);
        else call.reject(new RpcError(String(error)));
      }
    } catch {
      // The socket's own error and close events tell the caller.
    }
    this.close();
  }

  #settle(): Call | undefined {
    const call = this.#call;
    this.#call = undefined;
    return call;
  }
}
