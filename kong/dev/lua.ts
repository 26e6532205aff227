import { type LuaState, lauxlib, lua, lualib } from 'fengari';
import { fromBytes, LuaRef, type LuaValue, push, toBytes, toJs } from './lua-value.ts';

/** Returned by a builtin that ends the Lua program: it is never resumed, so no pcall can catch it. */
export const STOP = Symbol('stop');

type BuiltinResult = LuaValue[] | Promise<LuaValue[]> | typeof STOP;

/** A function of the host, or a field that it computes. Strings are bytes as latin1. */
export type Builtin<Host> =
  | ((host: Host, args: LuaValue[]) => BuiltinResult)
  | { get(host: Host): LuaValue; set?(host: Host, value: LuaValue): void };

export interface LuaOptions<Host> {
  /** Dotted name → builtin, e.g. `kong.request.get_path`. */
  library: ReadonlyMap<string, Builtin<Host>>;
  /** Hears every use of a global or member that does not exist, also when the Lua program catches the error. */
  onUnknown(host: Host, name: string): void;
}

/** `stopped`: a builtin ended the program; else the values that it returned. */
export type Outcome = { stopped: true } | { stopped: false; values: LuaValue[] };

/** What Kong's sandbox leaves of Lua's own library, minus what nobody needs here: the rest is unknown, hence loud. */
const SANDBOX = [
  'assert error ipairs next pairs pcall select tonumber tostring type xpcall',
  'math.abs math.ceil math.floor math.huge math.max math.min math.random os.clock os.time',
  'string.byte string.char string.find string.format string.gmatch string.gsub string.len string.lower string.match',
  'string.rep string.reverse string.sub string.upper table.concat table.insert table.remove table.sort table.unpack',
].flatMap(line => line.split(' '));

/** Comments and strings, then operators of Lua 5.3 that Kong's LuaJIT (5.1) cannot even parse. */
const NO_CODE =
  /--\[(=*)\[[\s\S]*?\]\1\]|--.*|\[(=*)\[[\s\S]*?\]\2\]|"(?:\\[\s\S]|[^"\\])*"|'(?:\\[\s\S]|[^'\\])*'/g;
const NOT_IN_LUAJIT = /\/\/|<<|>>|[&|]|~(?!=)/;

/** A Lua state for programs that were written for Kong's sandbox, with the host's library and nothing else. */
export class Lua<Host> {
  readonly #L: LuaState = lauxlib.luaL_newstate();
  readonly #options: LuaOptions<Host>;
  readonly #globals: LuaRef;
  #host: Host | undefined;
  #pending: Promise<LuaValue[]> | typeof STOP = STOP;
  #settled: { values: LuaValue[] } | { error: unknown } = { values: [] };

  constructor(options: LuaOptions<Host>) {
    this.#options = options;
    lualib.luaL_openlibs(this.#L);
    this.#globals = this.#createNamespace('');
    this.#restrictStringMethods();
  }

  /** A function of the chunk, with its own environment as Kong's sandbox gives. Throws on syntax that LuaJIT refuses. */
  compile(source: string, name: string): LuaRef {
    const L = this.#L;
    const operator = NOT_IN_LUAJIT.exec(source.replace(NO_CODE, ' '));
    if (operator !== null) {
      throw new Error(
        `Lua: ${name}: ${operator[0]} is an operator of Lua 5.3 that Kong's LuaJIT does not have`,
      );
    }
    const code = toBytes(Buffer.from(source, 'utf8').toString('latin1'));
    const status = lauxlib.luaL_loadbufferx(L, code, code.length, toBytes(`=${name}`), toBytes('t'));
    if (status !== lua.LUA_OK) throw new Error(`Lua: ${popError(L)}`);
    lua.lua_createtable(L, 0, 0);
    lua.lua_createtable(L, 0, 1);
    push(L, '__index');
    this.#globals.proxy(L);
    lua.lua_rawset(L, -3);
    lua.lua_setmetatable(L, -2);
    lua.lua_setupvalue(L, -2, 1);
    const chunk = new LuaRef(lua.lua_toproxy(L, -1), 'function');
    lua.lua_pop(L, 1);
    return chunk;
  }

  /** Runs a function to its end; builtins may be asynchronous. Rejects with the Lua error. */
  async run(fn: LuaRef, host: Host): Promise<Outcome> {
    const thread = this.#start(fn);
    for (;;) {
      const outcome = this.#resume(thread, host);
      if (outcome !== undefined) return outcome;
      try {
        this.#settled = { values: await (this.#pending as Promise<LuaValue[]>) };
      } catch (error) {
        this.#settled = { error };
      }
    }
  }

  /** Runs a function at once. Throws the Lua error, or when a builtin would have to wait. */
  runSync(fn: LuaRef, host: Host): Outcome {
    const outcome = this.#resume(this.#start(fn), host);
    if (outcome === undefined)
      throw new Error('Lua: a function that waits was called in a phase that cannot wait');
    return outcome;
  }

  createTable(): LuaRef {
    lua.lua_createtable(this.#L, 0, 0);
    const table = new LuaRef(lua.lua_toproxy(this.#L, -1), 'table');
    lua.lua_pop(this.#L, 1);
    return table;
  }

  getField(table: LuaRef, key: string): LuaValue {
    table.proxy(this.#L);
    push(this.#L, key);
    lua.lua_gettable(this.#L, -2);
    try {
      return toJs(this.#L, -1);
    } finally {
      lua.lua_pop(this.#L, 2);
    }
  }

  setField(table: LuaRef, key: string, value: LuaValue): void {
    table.proxy(this.#L);
    push(this.#L, key);
    push(this.#L, value);
    lua.lua_settable(this.#L, -3);
    lua.lua_pop(this.#L, 1);
  }

  #start(fn: LuaRef): LuaState {
    const thread = lua.lua_newthread(this.#L);
    lua.lua_pop(this.#L, 1);
    fn.proxy(thread);
    return thread;
  }

  /** One stretch of a program: its outcome, or undefined when it waits for `#pending`. */
  #resume(thread: LuaState, host: Host): Outcome | undefined {
    const before = this.#host;
    this.#host = host;
    const settled = this.#settled;
    const status = lua.lua_resume(thread, null, 0);
    this.#host = before;
    this.#settled = settled;
    if (status === lua.LUA_YIELD) return this.#pending === STOP ? { stopped: true } : undefined;
    if (status !== lua.LUA_OK) throw new Error(`Lua: ${popError(thread)}`);
    const count = lua.lua_gettop(thread);
    return { stopped: false, values: Array.from({ length: count }, (_, i) => toJs(thread, i + 1)) };
  }

  #builtin(fn: (host: Host, args: LuaValue[]) => BuiltinResult): (L: LuaState) => number {
    return L => {
      let result: BuiltinResult;
      try {
        const args = Array.from({ length: lua.lua_gettop(L) }, (_, i) => toJs(L, i + 1));
        result = fn(this.#host as Host, args);
      } catch (error) {
        return raise(L, error);
      }
      if (Array.isArray(result)) return pushAll(L, result);
      this.#pending = result;
      return lua.lua_yieldk(L, 0, 0, state => {
        const settled = this.#settled;
        return 'error' in settled ? raise(state, settled.error) : pushAll(state, settled.values);
      });
    };
  }

  /** The table for a prefix of the library's names. Unknown members raise, and are told to the host. */
  #createNamespace(prefix: string): LuaRef {
    const L = this.#L;
    const { library } = this.#options;
    const table = this.createTable();
    const fields = new Map<string, Exclude<Builtin<Host>, (...args: never) => unknown>>();
    const names = [...library.keys()]
      .filter(name => name.startsWith(prefix))
      .map(name => name.slice(prefix.length));
    for (const member of new Set(names.map(name => name.split('.')[0] ?? ''))) {
      const builtin = library.get(prefix + member);
      if (builtin === undefined) this.setField(table, member, this.#createNamespace(`${prefix}${member}.`));
      else if (typeof builtin === 'function') {
        lua.lua_pushcfunction(L, this.#builtin(builtin));
        this.setField(table, member, new LuaRef(lua.lua_toproxy(L, -1), 'function'));
        lua.lua_pop(L, 1);
      } else fields.set(member, builtin);
    }
    this.#copySandbox(table, prefix);
    const unknown = (host: Host, key: LuaValue): never => {
      this.#options.onUnknown(host, `${prefix}${String(key)}`);
      throw new Error(`${prefix}${String(key)} is unknown to the gateway stand-in`);
    };
    const metatable = this.createTable();
    this.#setFunction(metatable, '__index', (host, [, key]) => {
      // ("text")[1] is nil in every Lua.
      if (typeof key !== 'string') return [undefined];
      const field = fields.get(key);
      return field === undefined ? unknown(host, key) : [field.get(host)];
    });
    this.#setFunction(metatable, '__newindex', (host, [, key, value]) => {
      const set = fields.get(String(key))?.set;
      if (set === undefined) return unknown(host, key);
      set(host, value);
      return [];
    });
    table.proxy(L);
    metatable.proxy(L);
    lua.lua_setmetatable(L, -2);
    lua.lua_pop(L, 1);
    return table;
  }

  #setFunction(table: LuaRef, name: string, fn: (host: Host, args: LuaValue[]) => BuiltinResult): void {
    lua.lua_pushcfunction(this.#L, this.#builtin(fn));
    this.setField(table, name, new LuaRef(lua.lua_toproxy(this.#L, -1), 'function'));
    lua.lua_pop(this.#L, 1);
  }

  /** Lua's own functions at the prefix; at the root also the modules, as namespaces of their own. */
  #copySandbox(table: LuaRef, prefix: string): void {
    const L = this.#L;
    if (prefix === '') {
      for (const module of ['math.', 'os.', 'string.', 'table.']) {
        this.setField(table, module.slice(0, -1), this.#createNamespace(module));
      }
      lua.lua_getglobal(L, toBytes('table'));
      lua.lua_getfield(L, -1, toBytes('unpack'));
      this.setField(table, 'unpack', new LuaRef(lua.lua_toproxy(L, -1), 'function'));
      lua.lua_pop(L, 2);
    }
    for (const name of SANDBOX.filter(item => item.startsWith(prefix))) {
      const member = name.slice(prefix.length);
      if (member.includes('.')) continue;
      lua.lua_getglobal(L, toBytes(prefix === '' ? member : prefix.slice(0, -1)));
      if (prefix !== '') lua.lua_getfield(L, -1, toBytes(member));
      this.setField(table, member, new LuaRef(lua.lua_toproxy(L, -1), 'function'));
      lua.lua_pop(L, prefix === '' ? 1 : 2);
    }
  }

  /** `("x"):method()` finds the same functions as `string.method`, not Lua 5.3's. */
  #restrictStringMethods(): void {
    const L = this.#L;
    this.#globals.proxy(L);
    lua.lua_getfield(L, -1, toBytes('string'));
    const methods = new LuaRef(lua.lua_toproxy(L, -1), 'table');
    push(L, '');
    lua.lua_getmetatable(L, -1);
    this.setField(new LuaRef(lua.lua_toproxy(L, -1), 'table'), '__index', methods);
    lua.lua_pop(L, 4);
  }
}

/** The error that a failed call left. Nothing may be pushed on a dead thread. */
function popError(L: LuaState): string {
  const error = toJs(L, -1);
  lua.lua_pop(L, 1);
  return typeof error === 'string' ? Buffer.from(error, 'latin1').toString('utf8') : JSON.stringify(error);
}

function pushAll(L: LuaState, values: LuaValue[]): number {
  for (const value of values) push(L, value);
  return values.length;
}

function raise(L: LuaState, error: unknown): number {
  lauxlib.luaL_where(L, 1);
  const where = fromBytes(lua.lua_tolstring(L, -1));
  push(
    L,
    where + Buffer.from(error instanceof Error ? error.message : String(error), 'utf8').toString('latin1'),
  );
  return lua.lua_error(L);
}
