import { z } from 'zod';
import type { PluginConfig } from './declarative.ts';
import type { Exchange, Phase } from './exchange.ts';
import type { Lua } from './lua.ts';
import { LuaRef } from './lua-value.ts';
import type { Log } from './pdk.ts';
import type { PluginPdk } from './plugin-pdk.ts';
import { type PluginRpc, RpcError } from './plugin-rpc.ts';
import type { PluginInfo } from './plugin-server.ts';
import { serializeExchange } from './serialize.ts';

/** A plugin of the service. A phase that it does not have is absent. */
export interface Plugin {
  name: string;
  priority: number;
  access?(exchange: Exchange): Promise<void>;
  header_filter?(exchange: Exchange): void;
  body_filter?(exchange: Exchange): void;
  log?(exchange: Exchange): Promise<void>;
}

const sources = z.array(z.string());
const functionConfig = z.strictObject({
  access: sources.optional(),
  header_filter: sources.optional(),
  body_filter: sources.optional(),
});

const PRIORITIES = new Map([
  ['pre-function', 1_000_000],
  ['post-function', -1000],
]);

const MAX_INSTANCE_RESETS = 3;

const startedInstance = z.object({ Id: z.number() });
const answeredEvent = z.object({
  EventId: z.number(),
  Data: z.union([z.literal('ret'), z.object({ Method: z.string(), Args: z.array(z.unknown()) })]),
});

/** pre-function and post-function: Lua from kong.yml. Throws when it does not compile or has a phase unknown here. */
export function createFunctionPlugin({ name, config }: PluginConfig, lua: Lua<Exchange>): Plugin {
  const priority = PRIORITIES.get(name);
  if (priority === undefined)
    throw new Error(`plugin ${name} of kong.yml is unknown to the gateway stand-in`);
  const parsed = functionConfig.parse(config ?? {});
  const compile = (phase: Phase, texts: string[] = []): Chunk[] =>
    texts.map((source, i) => new Chunk(lua, lua.compile(source, `${name} ${phase}[${i + 1}]`)));
  const access = compile('access', parsed.access);
  const headerFilter = compile('header_filter', parsed.header_filter);
  const bodyFilter = compile('body_filter', parsed.body_filter);
  return {
    name,
    priority,
    async access(exchange) {
      for (const chunk of access) if (exchange.exit === undefined) await chunk.run(exchange);
    },
    ...(headerFilter.length > 0 && { header_filter: runAll(headerFilter) }),
    ...(bodyFilter.length > 0 && { body_filter: runAll(bodyFilter) }),
  };
}

function runAll(chunks: readonly Chunk[]): (exchange: Exchange) => void {
  return exchange => {
    for (const chunk of chunks) chunk.runSync(exchange);
  };
}

/** A compiled chunk. When its first run returns a function, that one is called, then and from then on. */
class Chunk {
  readonly #lua: Lua<Exchange>;
  #fn: LuaRef;
  #ran = false;

  constructor(lua: Lua<Exchange>, fn: LuaRef) {
    this.#lua = lua;
    this.#fn = fn;
  }

  async run(exchange: Exchange): Promise<void> {
    const first = !this.#ran;
    this.#ran = true;
    const outcome = await this.#lua.run(this.#fn, exchange);
    if (first && !outcome.stopped && this.#adopt(outcome.values[0])) await this.#lua.run(this.#fn, exchange);
    this.#check(exchange);
  }

  runSync(exchange: Exchange): void {
    const first = !this.#ran;
    this.#ran = true;
    const outcome = this.#lua.runSync(this.#fn, exchange);
    if (first && !outcome.stopped && this.#adopt(outcome.values[0])) this.#lua.runSync(this.#fn, exchange);
    this.#check(exchange);
  }

  #adopt(value: unknown): boolean {
    if (!(value instanceof LuaRef) || value.kind !== 'function') return false;
    this.#fn = value;
    return true;
  }

  #check(exchange: Exchange): void {
    if (exchange.fault !== undefined) throw new Error(exchange.fault);
  }
}

interface ExternalOptions {
  info: PluginInfo;
  config: PluginConfig;
  rpc: PluginRpc;
  pdk: PluginPdk;
  log: Log;
  /** Told the PDK round trips of each phase that ran to its end. */
  onPhase(phase: 'access' | 'log', pdkCalls: number): void;
}

/** A plugin of the plugin server, driven as Kong's bridge does it. */
export class ExternalPlugin implements Plugin {
  readonly name: string;
  readonly priority: number;
  readonly #options: ExternalOptions;
  #instance: Promise<number> | undefined;

  constructor(options: ExternalOptions) {
    this.#options = options;
    this.name = options.info.name;
    this.priority = options.info.priority;
  }

  /** Rejects when no instance can be had or a PDK call raises; a server that is down or silent only logs: fail open. */
  async access(exchange: Exchange): Promise<void> {
    if (this.#options.info.phases.includes('access')) await this.#run(exchange, 'access');
  }

  async log(exchange: Exchange): Promise<void> {
    if (!this.#options.info.phases.includes('log')) return;
    exchange.plugin = this.name;
    await this.#run(exchange, 'log', serializeExchange(exchange));
  }

  /** Id of the one instance of this configuration; StartInstance is called at the first need and after a reset. */
  async instance(): Promise<number> {
    const { rpc, config } = this.#options;
    this.#instance ??= rpc
      .call('plugin.StartInstance', { Name: this.name, Config: JSON.stringify(config.config ?? {}) })
      .then(started => startedInstance.parse(started).Id);
    try {
      return await this.#instance;
    } catch (error) {
      this.#instance = undefined;
      throw new Error(`starting instance: ${error instanceof Error ? error.message : String(error)}`);
    }
  }

  async #run(exchange: Exchange, phase: 'access' | 'log', serialized?: string): Promise<void> {
    for (let resets = 0; ; resets += 1) {
      const instance = await this.instance();
      try {
        return await this.#bridge(exchange, instance, phase, serialized);
      } catch (error) {
        if (!(error instanceof RpcError)) throw error;
        const lost =
          error.message.toLowerCase().includes('no plugin instance') && resets < MAX_INSTANCE_RESETS;
        this.#options.log(lost ? 'warn' : 'err', `[${this.name}] ${phase}: ${error.message}`);
        if (!lost) return;
        this.#instance = undefined;
      }
    }
  }

  /** One phase: HandleEvent, then a step for every PDK call, strictly in turn. */
  async #bridge(
    exchange: Exchange,
    instance: number,
    phase: 'access' | 'log',
    serialized: string | undefined,
  ): Promise<void> {
    const { rpc, pdk, onPhase } = this.#options;
    let answer = await rpc.call('plugin.HandleEvent', { InstanceId: instance, EventName: phase });
    for (let calls = 0; ; calls += 1) {
      const { EventId, Data } = answeredEvent.parse(answer);
      if (Data === 'ret') return onPhase(phase, calls);
      const result = pdk.call(exchange, phase, Data.Method, Data.Args, serialized);
      if (result === 'end') return onPhase(phase, calls + 1);
      if (result === 'hang') return;
      // ignoreUndefined: a nil result is an absent key, as Lua's MessagePack has it.
      answer = await rpc.call(result.step, { EventId, Data: result.value });
    }
  }
}
