import { startPluginGateway } from '../../plugin-gateway.ts';

/**
 * The gateway stand-in in a process of its own, started by fork: `gateway-process.ts <plugins> <JSON of the plugin's
 * environment>`. Says where it listens; asked for them, the PDK round trips of each phase.
 */

const [plugins = '', env = '{}'] = process.argv.slice(2);
const gateway = await startPluginGateway(plugins, JSON.parse(env));
const pluginServer = gateway.pluginServerPid();
process.on('message', () => process.send?.(gateway.pdkCalls()));
process.on('disconnect', () => void gateway.close().then(() => process.exit()));
process.send?.({ url: gateway.url, pluginServer });
