/**
 * (module
 *   (memory (export "memory") 5)
 *
 *   (func $isHex (param $char i32) (result i32)
 *     (i32.or
 *       (i32.lt_u (i32.sub (local.get $char) (i32.const 0x30)) (i32.const 10))
 *       (i32.lt_u (i32.sub (i32.or (local.get $char) (i32.const 0x20)) (i32.const 0x61)) (i32.const 6))))
 *
 *   (; One of "/, or of \bfnrt: bits of the letters below 64, and of the others. ;)
 *   (func $isLetter (param $char i32) (result i32)
 *     (i32.wrap_i64 (i64.and (i64.const 1) (i64.shr_u
 *       (select (i64.const 0x0000800400000000) (i64.const 0x0014404410000000)
 *         (i32.lt_u (local.get $char) (i32.const 64)))
 *       (i64.extend_i32_u (local.get $char))))))
 *
 *   (func (export "stringEnd") (param $at i32) (param $end i32) (result i32)
 *     (local $chars v128) (local $marks i32) (local $char i32)
 *     (loop $next
 *       (if (i32.ge_u (local.get $at) (local.get $end))
 *         (then (return (i32.sub (i32.const -2) (local.get $end)))))
 *       (local.set $chars (v128.load align=1 (local.get $at)))
 *       (local.set $marks
 *         (i8x16.bitmask
 *           (v128.or
 *             (v128.or
 *               (i8x16.eq (local.get $chars) (i8x16.splat (i32.const 0x22)))
 *               (i8x16.eq (local.get $chars) (i8x16.splat (i32.const 0x5c))))
 *             (i8x16.lt_u (local.get $chars) (i8x16.splat (i32.const 0x20))))))
 *       (if (i32.eqz (local.get $marks))
 *         (then
 *           (local.set $at (i32.add (local.get $at) (i32.const 16)))
 *           (br $next)))
 *       (local.set $at (i32.add (local.get $at) (i32.ctz (local.get $marks))))
 *       (if (i32.ge_u (local.get $at) (local.get $end))
 *         (then (return (i32.sub (i32.const -2) (local.get $end)))))
 *       (local.set $char (i32.load8_u (local.get $at)))
 *       (if (i32.eq (local.get $char) (i32.const 0x22))
 *         (then (return (i32.add (local.get $at) (i32.const 1)))))
 *       (if (i32.ne (local.get $char) (i32.const 0x5c))
 *         (then (return (i32.const -1))))
 *       (if (i32.gt_u (i32.add (local.get $at) (i32.const 2)) (local.get $end))
 *         (then (return (i32.sub (i32.const -2) (local.get $at)))))
 *       (local.set $char (i32.load8_u offset=1 (local.get $at)))
 *       (if (call $isLetter (local.get $char))
 *         (then
 *           (local.set $at (i32.add (local.get $at) (i32.const 2)))
 *           (br $next)))
 *       (if (i32.ne (local.get $char) (i32.const 0x75))
 *         (then (return (i32.const -1))))
 *       (if (i32.gt_u (i32.add (local.get $at) (i32.const 6)) (local.get $end))
 *         (then (return (i32.sub (i32.const -2) (local.get $at)))))
 *       (if (i32.eqz (i32.and
 *           (i32.and
 *             (call $isHex (i32.load8_u offset=2 (local.get $at)))
 *             (call $isHex (i32.load8_u offset=3 (local.get $at))))
 *           (i32.and
 *             (call $isHex (i32.load8_u offset=4 (local.get $at)))
 *             (call $isHex (i32.load8_u offset=5 (local.get $at))))))
 *         (then (return (i32.const -1))))
 *       (local.set $at (i32.add (local.get $at) (i32.const 6)))
 *       (br $next))
 *     (unreachable)))
 *
 * by wat2wasm of wabt 1.0.39. Its last look may go 15 bytes beyond the end, for which the memory has a page more.
 */
const MODULE =
  'AGFzbQEAAAABDAJgAX8Bf2ACf38BfwMEAwAAAQUDAQAFBxYCBm1lbW9yeQIACXN0cmluZ0VuZAACCrkCAxcAIABBMGtBCkkgAEEgckHhAGtBBkly' +
  'CyIAQgFCgICAgMCAIEKAgICAwYiQCiAAQcAASRsgAK2Ig6cL+wECAXsCfwNAIAAgAU8EQEF+IAFrDwsgAP0AAAAhAiACQSL9D/0jIAJB3AD9D/0j' +
  '/VAgAkEg/Q/9Jv1Q/WQhAyADRQRAIABBEGohAAwBCyAAIANoaiEAIAAgAU8EQEF+IAFrDwsgAC0AACEEIARBIkYEQCAAQQFqDwsgBEHcAEcEQEF/' +
  'DwsgAEECaiABSwRAQX4gAGsPCyAALQABIQQgBBABBEAgAEECaiEADAELIARB9QBHBEBBfw8LIABBBmogAUsEQEF+IABrDwsgAC0AAhAAIAAtAAMQ' +
  'AHEgAC0ABBAAIAAtAAUQAHFxRQRAQX8PCyAAQQZqIQAMAAsACw==';

interface Exports {
  memory: { buffer: ArrayBuffer };
  /**
   * Index behind the string that [at, end) lies in; -1 where it is none (RFC 8259 §7), -2 - index where the bytes end
   * before the string does, or before the escape that begins at that index.
   */
  stringEnd(at: number, end: number): number;
}

/** What is used of it here; Node's types leave it to those of the browser. */
declare const WebAssembly: {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { readonly exports: unknown };
};

const { memory, stringEnd } = new WebAssembly.Instance(new WebAssembly.Module(Buffer.from(MODULE, 'base64')))
  .exports as unknown as Exports;

/** Where bytes are read: those that lie here already need no copy. */
export const scratch = Buffer.from(memory.buffer, 0, 256 * 1024);

/**
 * Finds the ends of the strings of an ASCII text, 16 characters at a time: one or four at a time in JavaScript are no
 * faster than JSON.parse, and were a quarter of the time of calls of 64 KB. Of several texts only the last may be read.
 */
export class JsonStrings {
  readonly #bytes: Buffer;
  /** This part of the bytes lies in the scratch, from its start. */
  #from = 0;
  #to: number;

  /** Whatever lies in the scratch is these bytes, or no longer needed. */
  constructor(bytes: Buffer) {
    this.#bytes = bytes;
    const isThere = bytes.buffer === scratch.buffer && bytes.byteOffset === scratch.byteOffset;
    this.#to = isThere ? bytes.length : 0;
  }

  /** Index behind the string that begins with the quote at `from`; -1 where it is none. */
  end(from: number): number {
    const { length } = this.#bytes;
    let at = from + 1;
    if (at < this.#from || at >= this.#to) this.#load(at);
    for (;;) {
      const base = this.#from;
      const found = stringEnd(at - base, this.#to - base);
      if (found >= 0) return base + found;
      if (found === -1 || this.#to === length) return -1;
      at = base - 2 - found;
      this.#load(at);
    }
  }

  #load(at: number): void {
    this.#from = at;
    this.#to = at + this.#bytes.copy(scratch, 0, at);
  }
}
