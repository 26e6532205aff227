import { auditLine } from './audit-line.ts';
import { RotatingFile } from './rotating-file.ts';

export interface AuditLog {
  /** Takes one entry; never throws, never waits. */
  write(entry: object): void;
  /** Resolves when all that was taken is in the file, or the disk just refused it. Never rejects. */
  flush(): Promise<void>;
  /** Writes what it can within 2 s; the rest counts as dropped. Never rejects. */
  close(): Promise<void>;
  /** Entries lost since the start. */
  readonly dropped: number;
}

interface AuditLogOptions {
  /** `%p` becomes the process id. Each process needs a file of its own; an instance's name outlasts a restart. */
  path: string;
  /** A file that would become larger is set aside as `<path>.<n>`; the largest n is the newest one. */
  maxBytes?: number;
  /** Files set aside that are kept. */
  keep?: number;
  log(text: string): void;
  /** Memory for entries that the disk has not taken yet. */
  maxPendingBytes?: number;
}

const CHUNK_BYTES = 256 * 1024;
/** What a waiting line takes besides its bytes. */
const LINE_OVERHEAD = 128;
const RETRY_MS = 1000;
const CLOSE_MS = 2000;
const NEWLINE = 0x0a;
/** After these the file is still good, and the rest of a line can follow. */
const DISK_FULL = new Set(['ENOSPC', 'EDQUOT', 'EFBIG', 'EAGAIN']);

/**
 * JSON lines on a disk that can hold up nobody: entries wait in bounded memory, and when that is full they are lost
 * and counted; where they are missing, a line `{"event":"audit_entries_lost","lost":n}` stands. A write that a full
 * disk took in part is finished later, so that no line is torn.
 */
export function createAuditLog(options: AuditLogOptions): AuditLog {
  const queue = new AuditQueue(options);
  return {
    write: entry => queue.take(entry),
    flush: () => queue.drained(),
    close: () => queue.close(),
    get dropped() {
      return queue.dropped;
    },
  };
}

class AuditQueue {
  readonly #name: string;
  readonly #file: RotatingFile;
  readonly #log: (text: string) => void;
  readonly #chunkBytes: number;
  readonly #maxPendingBytes: number;
  #lines: Buffer[] = [];
  #pendingBytes = 0;
  /** Lines on their way to the disk; without what it took of them already. */
  #chunk: Buffer = Buffer.alloc(0);
  #midLine = false;
  #draining: Promise<void> | undefined;
  #retry: NodeJS.Timeout | undefined;
  #failing = false;
  #closed = false;
  /** Lost, and no line tells of it yet. */
  #untold = 0;
  dropped = 0;

  constructor(options: AuditLogOptions) {
    const { maxBytes = 100_000_000, keep = 5, log, maxPendingBytes = 8_000_000 } = options;
    const path = options.path.replaceAll('%p', String(process.pid));
    this.#name = `audit log ${path}`;
    this.#file = new RotatingFile({ path, maxBytes, keep, log: text => log(`audit log: ${text}`) });
    this.#log = log;
    this.#chunkBytes = Math.min(CHUNK_BYTES, maxBytes / 8);
    this.#maxPendingBytes = maxPendingBytes;
  }

  take(entry: object): void {
    const line = this.#closed ? undefined : auditLine(entry);
    if (!line || this.#pendingBytes + line.length + LINE_OVERHEAD > this.#maxPendingBytes) {
      this.dropped += 1;
      this.#untold += 1;
    } else {
      this.#tellLost();
      this.#push(line);
    }
    if (this.#retry === undefined && !this.#closed) this.#start();
  }

  drained(): Promise<void> {
    if (this.#waiting) this.#start();
    return this.#draining ?? Promise.resolve();
  }

  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    const late = new AbortController();
    await Promise.race([this.drained(), pause(CLOSE_MS, late.signal)]);
    late.abort();
    clearTimeout(this.#retry);
    const left = this.#lines.length + this.#chunk.reduce((sum, byte) => sum + Number(byte === NEWLINE), 0);
    if (left > 0) this.#log(`${this.#name}: ${left} entries could not be written before the end`);
    this.dropped += left;
    this.#lines = [];
    this.#chunk = Buffer.alloc(0);
    this.#untold = 0;
    // A disk that hangs keeps its file.
    if (this.#draining === undefined) await this.#file.close();
  }

  get #waiting(): boolean {
    return this.#chunk.length > 0 || this.#lines.length > 0 || this.#untold > 0;
  }

  #push(line: Buffer): void {
    this.#lines.push(line);
    this.#pendingBytes += line.length + LINE_OVERHEAD;
  }

  #tellLost(): void {
    if (this.#untold === 0) return;
    const time = new Date().toISOString();
    const line = auditLine({ time, event: 'audit_entries_lost', lost: this.#untold });
    this.#untold = 0;
    if (line) this.#push(line);
  }

  #start(): void {
    clearTimeout(this.#retry);
    this.#retry = undefined;
    this.#draining ??= this.#drain().finally(() => {
      this.#draining = undefined;
    });
  }

  async #drain(): Promise<void> {
    try {
      while (this.#waiting) {
        if (!this.#file.isOpen) await this.#open();
        if (this.#chunk.length === 0) await this.#nextChunk();
        const taken = await this.#file.write(this.#chunk);
        if (taken > 0) this.#midLine = this.#chunk[taken - 1] !== NEWLINE;
        this.#chunk = this.#chunk.subarray(taken);
        if (this.#failing)
          this.#log(`${this.#name} is written again; ${this.dropped} entries are lost so far`);
        this.#failing = false;
      }
    } catch (error) {
      await this.#fail(error as NodeJS.ErrnoException);
    }
  }

  /** The rest of a line whose beginning went to a file that is gone would be no line. */
  async #open(): Promise<void> {
    await this.#file.open();
    if (!this.#midLine) return;
    this.#midLine = false;
    this.#chunk = this.#chunk.subarray(this.#chunk.indexOf(NEWLINE) + 1);
    this.dropped += 1;
    this.#untold += 1;
  }

  async #nextChunk(): Promise<void> {
    if (this.#lines.length === 0) this.#tellLost();
    let bytes = 0;
    let count = 0;
    for (const line of this.#lines) {
      if (count > 0 && bytes + line.length > this.#chunkBytes) break;
      bytes += line.length;
      count += 1;
    }
    await this.#file.makeRoom(bytes);
    const lines = this.#lines.splice(0, count);
    this.#pendingBytes -= bytes + lines.length * LINE_OVERHEAD;
    this.#chunk = Buffer.concat(lines);
  }

  async #fail(error: NodeJS.ErrnoException): Promise<void> {
    if (!this.#failing)
      this.#log(`${this.#name} cannot be written: ${error.message}; entries wait in memory`);
    this.#failing = true;
    if (!DISK_FULL.has(error.code ?? '')) await this.#file.close();
    // Nobody stays alive for it: close() is told how long to try.
    if (!this.#closed) this.#retry = setTimeout(() => this.#start(), RETRY_MS).unref();
  }
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise(resolve => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener('abort', () => clearTimeout(timer));
  });
}
