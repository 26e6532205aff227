'use strict';

// Kong's JavaScript plugin server, started by kong.conf:
//   node server.cjs --plugins-directory DIR --kong-prefix DIR --sock-name NAME
//   node server.cjs --plugins-directory DIR --dump-all-plugins
// It is kong-pdk 0.6.0's own Server and Listener with the defects contained that would stop it in production:
// leaked events, a listener that dies on odd input, instances that vanish, logs on the stdout that Kong parses.

// Before everything else: an older Node would fail later with a riddle.
const MINIMUM_NODE = 24;
if (Number.parseInt(process.versions.node, 10) < MINIMUM_NODE) {
  process.stderr.write(
    `mcp-mesh plugin server: Node ${MINIMUM_NODE} or newer is needed, this is ${process.version} (${process.execPath}). ` +
      'Cure: name a newer node in pluginserver_mesh_start_cmd and pluginserver_mesh_query_cmd of kong.conf.\n',
  );
  process.exit(1);
}

const fs = require('node:fs');
const Module = require('node:module');
const net = require('node:net');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { decodeMultiStream, encode } = require('@msgpack/msgpack');

const { Server, Listener, PluginModule } = loadKongPdk();

/** The RPC surface. Anything else on the object (constructor, close, loadPlugins, …) is not callable from outside. */
const RPC_METHODS = new Map(
  [
    ...['GetStatus', 'GetPluginInfo', 'StartInstance', 'InstanceStatus', 'CloseInstance', 'HandleEvent'],
    ...['Step', 'StepError', 'StepMultiMap', 'StepService', 'StepConsumer', 'StepRoute', 'StepPlugin'],
    ...['StepCredential', 'StepMemoryStats'],
  ].map(name => [`plugin.${name}`, name]),
);

const PHASE_ENDED = 'ret';
/** Whoever stops us may kill soon. */
const CLOSE_MS = 1000;
/** PDK calls that end the request: Kong sends no further step, so their event would stay for ever. */
const NON_RETURNING = new Set(['kong.response.exit', 'kong.response.error']);

/** File types that may lie beside the plugin (source maps, notes), as kong-pdk has it. */
const IGNORED = new Set(['.json', '.md', '.map', '.mjs']);

/** Far above what Kong sends (headers and one 64 KB body), far below what would exhaust memory. */
const MESSAGE_LIMITS = {
  maxStrLength: 2 ** 24,
  maxBinLength: 2 ** 24,
  maxArrayLength: 2 ** 16,
  maxMapLength: 2 ** 16,
};

const OPTIONS = {
  'plugins-directory': { type: 'string', short: 'd' },
  'kong-prefix': { type: 'string', short: 'p', default: '/usr/local/kong' },
  'sock-name': { type: 'string', default: 'mesh.sock' },
  'dump-all-plugins': { type: 'boolean', default: false },
  // Kong never answers a PDK call that raised in Lua; 120 s is twice its own time-out for a phase.
  'event-idle-ms': { type: 'string', default: '120000' },
  // For supervisors that can be killed with -9: they hold our stdin open, its end is their end.
  'exit-with-parent': { type: 'boolean', default: false },
  verbose: { type: 'boolean', short: 'v', default: false },
};

class MeshServer extends Server {
  /** When an open event was last heard of, and whether it is Kong's turn; `events` itself is kong-pdk's. */
  #turns = new Map();

  constructor(pluginsDirectory, logger) {
    super(null, logger);
    this.pluginDir = pluginsDirectory;
    this.loadPlugins();
  }

  /** kong-pdk only warns when a plugin fails to load, and the dump is then an empty list: here it throws. */
  loadPlugins() {
    const files = fs.readdirSync(this.pluginDir).filter(isPluginFile);
    if (files.length !== 1)
      throw new Error(
        `${this.pluginDir} must hold exactly one plugin file, since Kong uses only the first plugin of a server; ` +
          `found ${files.length === 0 ? 'none' : files.join(', ')}`,
      );
    const file = path.join(this.pluginDir, files[0]);
    try {
      const plugin = new PluginModule(path.parse(file).name, file);
      this.plugins.set(plugin.name, plugin);
    } catch (cause) {
      throw new Error(`cannot load plugin ${file}: ${cause?.stack ?? cause}`, { cause });
    }
  }

  /** No expiry: kong-pdk's runs every 60 ms and forgets instances of a quiet minute. CloseInstance frees them. */
  clearExpiredPlugins() {
    return undefined;
  }

  async StartInstance(config) {
    const info = await super.StartInstance(config);
    const instance = this.instances.get(info.Id);
    const execute = instance.executePhase.bind(instance);
    // kong-pdk logs what a phase throws without its stack.
    instance.executePhase = async (phase, kong) => {
      try {
        await execute(phase, kong);
      } catch (error) {
        this.logger.error(`${info.Name} instance #${info.Id}, ${phase} phase: ${error?.stack ?? error}`);
      }
    };
    return info;
  }

  async GetStatus() {
    const status = await super.GetStatus();
    return { ...status, Instances: this.instances.size, Events: this.events.size };
  }

  async HandleEvent(event) {
    const instance = this.instances.get(event.InstanceId);
    const phases = instance && this.plugins.get(instance.getName()).getPhases();
    // Only a declared phase is run: EventName comes from outside, and `constructor` is a method, too.
    if (phases && !phases.includes(event.EventName))
      throw new Server.Error(`plugin ${instance.getName()} has no phase ${event.EventName}`);
    return this.#settle(await super.HandleEvent(event));
  }

  async step(data, isError) {
    this.#turns.delete(data.EventId);
    return this.#settle(await super.step(data, isError));
  }

  /** Frees what Kong will not come back to, within one to one and a half times `idleMs` after it was last heard of. */
  sweep(idleMs, now = Date.now()) {
    for (const [id, pipe] of this.events) {
      const turn = this.#turns.get(id);
      if (turn === undefined) this.#turns.set(id, { since: now, kong: false });
      else if (now - turn.since >= idleMs) {
        this.#forget(id);
        // The plugin's promise is rejected, so that its `finally` blocks run.
        if (turn.kong) pipe.put([undefined, `no answer from Kong within ${idleMs} ms`]);
        this.logger.warn(
          `event #${id}: ${turn.kong ? 'Kong never answered a PDK call' : 'a phase never ended'}, freed`,
        );
      }
    }
  }

  #settle(answer) {
    if (answer.Data === PHASE_ENDED || NON_RETURNING.has(answer.Data.Method)) this.#forget(answer.EventId);
    else this.#turns.set(answer.EventId, { since: Date.now(), kong: true });
    return answer;
  }

  #forget(id) {
    this.events.delete(id);
    this.#turns.delete(id);
  }
}

class StreamListener extends Listener {
  /** Connections that are open, to be ended at shutdown. */
  sockets = new Set();

  serve() {
    removeStaleSocket(this.prefix);
    const server = net.createServer(socket => {
      this.sockets.add(socket);
      socket.on('close', () => this.sockets.delete(socket));
      // Kong closes its side when it times out; the reply that then fails is nobody's any more.
      socket.on('error', error => this.logger.debug(`connection: ${error.message}`));
      void this.#read(socket);
    });
    server.listen(this.prefix, () => this.logger.info(`listening on ${this.prefix}`));
    return server;
  }

  /** Reads requests until the connection ends. What is not MessagePack cannot be resynchronised: connection closed. */
  async #read(socket) {
    try {
      for await (const message of decodeMultiStream(socket, MESSAGE_LIMITS)) {
        void this.#answer(socket, message);
        // Nothing that follows can be trusted: a line of text is a row of valid MessagePack integers.
        if (!Array.isArray(message)) break;
      }
    } catch (error) {
      // A code is the socket's own error, told by its event; the decoder's errors have none.
      if (error.code === undefined)
        this.logger.error(`connection closed, it sent no MessagePack-RPC: ${error.message}`);
    } finally {
      socket.destroy();
    }
  }

  async #answer(socket, message) {
    const [type, id, method, args] = Array.isArray(message) ? message : [];
    try {
      if (type !== 0 || !Number.isSafeInteger(id) || !Array.isArray(args))
        throw new Server.Error('malformed request: [0, id, method, [arguments]] expected');
      const name = RPC_METHODS.get(method);
      if (name === undefined) throw new Server.Error(`method ${String(method)} not implemented`);
      this.#send(socket, [1, id, null, (await this.ps[name](...args)) ?? null]);
    } catch (error) {
      const reason = String(error?.message ?? error);
      const trace = error instanceof Server.Error ? reason : error?.stack;
      this.logger.error(`rpc ${String(method)} #${id}: ${trace}`);
      this.#send(socket, [1, Number.isSafeInteger(id) ? id : null, reason, null]);
    }
  }

  #send(socket, answer) {
    // A socket that was destroyed meanwhile drops it.
    socket.write(encode(answer));
  }
}

main();

function main() {
  // Kong parses stdout as JSON, and a plugin or package may print there at any time.
  const toStdout = process.stdout.write.bind(process.stdout);
  process.stdout.write = process.stderr.write.bind(process.stderr);
  let server;
  try {
    const options = readOptions();
    server = new MeshServer(options['plugins-directory'], createLogger(options.verbose));
    if (!options['dump-all-plugins']) return serve(server, options);
  } catch (error) {
    process.stderr.write(`mcp-mesh plugin server: ${error.message}\n`);
    process.exit(1);
  }
  // An explicit end: timers that a plugin started at import would keep the query command running.
  const infos = [...server.getPlugins().keys()].map(name => server.GetPluginInfo(name));
  void Promise.all(infos).then(dump => toStdout(`${JSON.stringify(dump)}\n`, () => process.exit(0)));
}

function serve(pluginServer, options) {
  const logger = pluginServer.getLogger();
  const listener = new StreamListener(pluginServer, path.join(options['kong-prefix'], options['sock-name']));
  const server = listener.serve();
  server.on('error', error => {
    logger.error(`cannot listen on ${listener.prefix}: ${error.message}`);
    process.exit(1);
  });
  const idleMs = Number(options['event-idle-ms']);
  setInterval(() => pluginServer.sweep(idleMs), idleMs / 4).unref();
  const stop = reason => {
    logger.info(`${reason}: closing`);
    // A plugin that exports `close` sends what it has gathered.
    const closed = [...pluginServer.plugins.values()].map(async ({ mod }) => mod.close?.());
    setTimeout(() => process.exit(0), CLOSE_MS);
    server.close(() => void Promise.allSettled(closed).then(() => process.exit(0)));
    for (const socket of listener.sockets) socket.destroy();
  };
  for (const signal of ['SIGTERM', 'SIGINT']) process.once(signal, stop);
  if (options['exit-with-parent']) process.stdin.once('close', () => stop('parent is gone')).resume();
}

function readOptions() {
  const { values } = parseArgs({ options: OPTIONS });
  const directory = values['plugins-directory'];
  if (directory === undefined || !path.isAbsolute(directory))
    throw new Error('--plugins-directory DIR is needed, as an absolute path');
  if (!(Number(values['event-idle-ms']) > 0)) throw new Error('--event-idle-ms must be a number above 0');
  return values;
}

/** The methods of node-color-log that kong-pdk calls, on stderr. */
function createLogger(verbose) {
  const logger = { debug() {} };
  for (const level of [...(verbose ? ['debug'] : []), 'info', 'warn', 'error'])
    logger[level] = (...words) => process.stderr.write(`${level}: ${words.join(' ')}\n`);
  return logger;
}

function isPluginFile(file) {
  return !file.startsWith('.') && file !== 'node_modules' && !IGNORED.has(path.extname(file));
}

function removeStaleSocket(file) {
  const stat = fs.lstatSync(file, { throwIfNoEntry: false });
  if (stat?.isSocket()) fs.unlinkSync(file);
  else if (stat) throw new Error(`${file} is no socket: remove it or choose another --sock-name`);
}

/** kong-pdk registers ts-node at load, which dies beside TypeScript 7 and is not needed for a bundle. */
function loadKongPdk() {
  const load = Module._load;
  Module._load = function (request, ...rest) {
    return request === 'ts-node' ? { register() {} } : load.call(this, request, ...rest);
  };
  try {
    return {
      Server: require('kong-pdk/server'),
      Listener: require('kong-pdk/listener'),
      PluginModule: require('kong-pdk/lib/mod').Module,
    };
  } finally {
    Module._load = load;
  }
}
