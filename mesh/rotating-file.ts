import { constants } from 'node:fs';
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { basename, dirname } from 'node:path';

interface RotatingFileOptions {
  path: string;
  maxBytes: number;
  keep: number;
  log(text: string): void;
}

const APPEND = constants.O_APPEND | constants.O_CREAT;
const NEWLINE = 0x0a;

/**
 * A file of lines that is set aside as `<path>.1`, the next one as `<path>.2` and so on, when it would become too large;
 * the last `keep` of them stay. Opened by its owner only (0600). A device or pipe is written to and never set aside.
 */
export class RotatingFile {
  readonly #options: RotatingFileOptions;
  #file: FileHandle | undefined;
  #size = 0;
  #regular = true;
  #stuck = false;

  constructor(options: RotatingFileOptions) {
    this.#options = options;
  }

  get isOpen(): boolean {
    return this.#file !== undefined;
  }

  /** Opens the file; a line that a killed process left unfinished is ended, so that no other is glued to it. */
  async open(): Promise<void> {
    const { path } = this.#options;
    await mkdir(dirname(path), { recursive: true, mode: 0o700 });
    this.#regular = (await stat(path).catch(() => undefined))?.isFile() ?? true;
    const file = await open(path, APPEND | (this.#regular ? constants.O_RDWR : constants.O_WRONLY), 0o600);
    try {
      this.#size = 0;
      if (this.#regular) {
        // One that was there may have been readable by others.
        await file.chmod(0o600).catch(() => {});
        this.#size = (await file.stat()).size;
        const last = Buffer.alloc(1);
        if (this.#size > 0) await file.read(last, 0, 1, this.#size - 1);
        if (this.#size > 0 && last[0] !== NEWLINE) await file.write('\n');
      }
      this.#file = file;
    } catch (error) {
      await file.close().catch(() => {});
      throw error;
    }
  }

  /** To be called between lines, before so many bytes. */
  async makeRoom(bytes: number): Promise<void> {
    if (!this.#regular || this.#size === 0 || this.#size + bytes <= this.#options.maxBytes) return;
    try {
      await this.#setAside();
    } catch (error) {
      // A file that grows is better than lost lines.
      if (!this.#stuck)
        this.#options.log(`${this.#options.path} cannot be set aside: ${(error as Error).message}`);
      this.#stuck = true;
      return;
    }
    this.#stuck = false;
    await this.close();
    await this.open();
  }

  /** Resolves with how many of the bytes the disk took: a full one takes a part. */
  async write(bytes: Buffer): Promise<number> {
    const { bytesWritten = 0 } = (await this.#file?.write(bytes)) ?? {};
    this.#size += bytesWritten;
    return bytesWritten;
  }

  /** Never rejects. */
  async close(): Promise<void> {
    const file = this.#file;
    this.#file = undefined;
    await file?.close().catch(() => {});
  }

  async #setAside(): Promise<void> {
    const { path, keep } = this.#options;
    const [ours, there] = await Promise.all([this.#file?.stat(), stat(path).catch(() => undefined)]);
    // Another process that shares the path, or logrotate, was first: follow it.
    if (ours?.ino !== there?.ino || ours?.dev !== there?.dev) return;
    if (keep === 0) return await rm(path);
    const aside = await this.#aside();
    const next = await this.#claimAfter(aside.at(-1) ?? 0);
    await rename(path, `${path}.${next}`).catch(async (error: NodeJS.ErrnoException) => {
      await rm(`${path}.${next}`);
      // Another process was first.
      if (error.code !== 'ENOENT') throw error;
    });
    for (const n of [...aside, next].slice(0, -keep)) await rm(`${path}.${n}`, { force: true });
  }

  /** Numbers of the files set aside, oldest first. */
  async #aside(): Promise<number[]> {
    const { path } = this.#options;
    const start = `${basename(path)}.`;
    return (
      (await readdir(dirname(path), { withFileTypes: true }))
        .filter(entry => entry.isFile() && entry.name.startsWith(start))
        .map(({ name }) => name.slice(start.length))
        // Not those of eight digits, which are somebody's dates.
        .filter(end => /^[1-9]\d{0,6}$/.test(end))
        .map(Number)
        .sort((a, b) => a - b)
    );
  }

  /** Creates the file to rename to: no number is taken by two processes, of which one would lose its lines. */
  async #claimAfter(last: number): Promise<number> {
    for (let n = last + 1; ; n += 1) {
      try {
        await writeFile(`${this.#options.path}.${n}`, '', { flag: 'wx', mode: 0o600 });
        return n;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      }
    }
  }
}
