/** The part of fengari 0.1.5 (Lua 5.3 in JavaScript) that lua.ts uses; the package ships no types. */
declare module 'fengari' {
  interface LuaState {
    readonly l_G: object;
  }
  type CFunction = (L: LuaState) => number;
  type Continuation = (L: LuaState, status: number, context: number) => number;
  /** Pushes the value that it stands for; keeps it alive as long as JavaScript holds it. */
  type LuaProxy = (L: LuaState) => void;
  export const lua: {
    readonly LUA_OK: number;
    readonly LUA_YIELD: number;
    readonly LUA_TNIL: number;
    readonly LUA_TBOOLEAN: number;
    readonly LUA_TNUMBER: number;
    readonly LUA_TSTRING: number;
    readonly LUA_TTABLE: number;
    readonly LUA_TFUNCTION: number;
    lua_absindex(L: LuaState, index: number): number;
    lua_checkstack(L: LuaState, extra: number): boolean;
    lua_createtable(L: LuaState, array: number, record: number): void;
    lua_error(L: LuaState): never;
    lua_getfield(L: LuaState, index: number, key: Uint8Array): number;
    lua_getglobal(L: LuaState, name: Uint8Array): number;
    lua_getmetatable(L: LuaState, index: number): boolean;
    lua_gettable(L: LuaState, index: number): number;
    lua_gettop(L: LuaState): number;
    lua_isinteger(L: LuaState, index: number): boolean;
    lua_newthread(L: LuaState): LuaState;
    lua_next(L: LuaState, index: number): number;
    lua_pop(L: LuaState, count: number): void;
    lua_pushboolean(L: LuaState, value: boolean): void;
    lua_pushcfunction(L: LuaState, fn: CFunction): void;
    lua_pushinteger(L: LuaState, value: number): void;
    lua_pushlstring(L: LuaState, bytes: Uint8Array, length: number): void;
    lua_pushnil(L: LuaState): void;
    lua_pushnumber(L: LuaState, value: number): void;
    lua_pushvalue(L: LuaState, index: number): void;
    lua_rawset(L: LuaState, index: number): void;
    lua_rawseti(L: LuaState, index: number, n: number): void;
    lua_resume(L: LuaState, from: LuaState | null, nargs: number): number;
    lua_setmetatable(L: LuaState, index: number): void;
    lua_settable(L: LuaState, index: number): void;
    lua_setupvalue(L: LuaState, index: number, n: number): Uint8Array | null;
    lua_toboolean(L: LuaState, index: number): boolean;
    lua_tolstring(L: LuaState, index: number): Uint8Array | null;
    lua_tonumber(L: LuaState, index: number): number;
    lua_toproxy(L: LuaState, index: number): LuaProxy;
    lua_type(L: LuaState, index: number): number;
    lua_typename(L: LuaState, type: number): Uint8Array;
    lua_yieldk(L: LuaState, results: number, context: number, k: Continuation): number;
  };
  export const lauxlib: {
    luaL_loadbufferx(
      L: LuaState,
      code: Uint8Array,
      length: number,
      name: Uint8Array,
      mode: Uint8Array,
    ): number;
    luaL_newstate(): LuaState;
    luaL_where(L: LuaState, level: number): void;
  };
  export const lualib: { luaL_openlibs(L: LuaState): void };
}
