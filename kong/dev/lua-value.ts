import { type LuaProxy, type LuaState, lua } from 'fengari';

/** A function, table or other value that stays in Lua. */
export class LuaRef {
  readonly proxy: LuaProxy;
  readonly kind: 'function' | 'table';

  constructor(proxy: LuaProxy, kind: 'function' | 'table') {
    this.proxy = proxy;
    this.kind = kind;
  }
}

export type LuaTable = { [key: string]: LuaValue };

/** Lua strings are bytes; here each byte is one character (latin1). `undefined` is nil. */
export type LuaValue = undefined | null | boolean | number | string | LuaRef | LuaValue[] | LuaTable;

const MAX_DEPTH = 100;
/** Slots that one level of a nested table needs; Lua grants a called function 20 in all. */
const STACK_PER_LEVEL = 8;
const MAX_INT = 2 ** 31;

/**
 * The value at `index` as JavaScript. Tables become arrays when their keys are 1..n, else objects: the empty table is
 * `[]` and one with holes is an object, as Kong's MessagePack sends them (measured on Kong 3.9.3). Functions stay references.
 * Throws for userdata and threads, and for a table that contains itself.
 */
export function toJs(L: LuaState, index: number, depth = 0): LuaValue {
  const type = lua.lua_type(L, index);
  if (type < 0 || type === lua.LUA_TNIL) return undefined;
  if (type === lua.LUA_TBOOLEAN) return lua.lua_toboolean(L, index);
  if (type === lua.LUA_TNUMBER) return lua.lua_tonumber(L, index);
  if (type === lua.LUA_TSTRING) return fromBytes(lua.lua_tolstring(L, index));
  if (type === lua.LUA_TFUNCTION) return new LuaRef(lua.lua_toproxy(L, index), 'function');
  if (type === lua.LUA_TTABLE) return tableToJs(L, lua.lua_absindex(L, index), depth);
  throw new TypeError(`a ${fromBytes(lua.lua_typename(L, type))} cannot leave Lua`);
}

/** Pushes a JavaScript value; absent object members and array holes become nil. */
export function push(L: LuaState, value: LuaValue): void {
  lua.lua_checkstack(L, STACK_PER_LEVEL);
  if (value === undefined || value === null) lua.lua_pushnil(L);
  else if (typeof value === 'boolean') lua.lua_pushboolean(L, value);
  else if (typeof value === 'number') pushNumber(L, value);
  else if (typeof value === 'string') pushBytes(L, value);
  else if (value instanceof LuaRef) value.proxy(L);
  else if (Array.isArray(value)) {
    lua.lua_createtable(L, value.length, 0);
    for (const [i, item] of value.entries()) {
      push(L, item);
      lua.lua_rawseti(L, -2, i + 1);
    }
  } else {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined && item !== null);
    lua.lua_createtable(L, 0, entries.length);
    for (const [key, item] of entries) {
      pushBytes(L, key);
      push(L, item);
      lua.lua_rawset(L, -3);
    }
  }
}

/** A latin1 string as the bytes that fengari takes; not a Buffer, whose `slice` shares memory. */
export function toBytes(text: string): Uint8Array {
  return new Uint8Array(Buffer.from(text, 'latin1'));
}

export function fromBytes(bytes: Uint8Array | null): string {
  if (bytes === null) return '';
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1');
}

function tableToJs(L: LuaState, index: number, depth: number): LuaValue {
  if (depth >= MAX_DEPTH) throw new RangeError('a table is nested too deeply or contains itself');
  lua.lua_checkstack(L, STACK_PER_LEVEL);
  const entries: [string | number, LuaValue][] = [];
  let isArray = true;
  let largest = 0;
  lua.lua_pushnil(L);
  while (lua.lua_next(L, index) !== 0) {
    const key = lua.lua_isinteger(L, -2) ? lua.lua_tonumber(L, -2) : toJs(L, -2, depth + 1);
    if (typeof key !== 'string' && typeof key !== 'number')
      throw new TypeError('a table key is no string or number');
    if (typeof key === 'number' && Number.isInteger(key) && key > 0) largest = Math.max(largest, key);
    else isArray = false;
    entries.push([key, toJs(L, -1, depth + 1)]);
    lua.lua_pop(L, 1);
  }
  if (!isArray || largest !== entries.length) return Object.fromEntries(entries);
  return entries.sort(([a], [b]) => Number(a) - Number(b)).map(([, value]) => value);
}

function pushNumber(L: LuaState, value: number): void {
  // fengari's integers have 32 bits; beyond them only a float keeps the value, as in LuaJIT.
  if (Number.isInteger(value) && Math.abs(value) < MAX_INT) lua.lua_pushinteger(L, value);
  else lua.lua_pushnumber(L, value);
}

function pushBytes(L: LuaState, text: string): void {
  const bytes = toBytes(text);
  lua.lua_pushlstring(L, bytes, bytes.length);
}
