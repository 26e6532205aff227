import { loadRegistry } from '../../mesh/registry.ts';
import { registryEnvironment, startSettings } from '../../mesh/settings.ts';
import { connectSupervisor } from '../control.ts';
import { connectGateway } from '../gateway.ts';
import { listTools } from '../tools/list.ts';

interface Given {
  operands: readonly string[];
  options: Readonly<Record<string, string>>;
}

/** Names that an argument of a command may have, by what help calls it; empty when nobody can tell. */
export async function namesFor(argument: string, given: Given): Promise<string[]> {
  const sources = argument.split('|').map(kind => SOURCES[kind]);
  const lists = await Promise.all(sources.map(source => source?.(given).catch(() => []) ?? []));
  return lists.flat();
}

const SOURCES: Readonly<Record<string, (given: Given) => Promise<string[]>>> = {
  async service({ options }) {
    const path = options.registry ?? startSettings().registryPath;
    const { services } = loadRegistry(path, { env: registryEnvironment(), only: '' });
    return services.map(({ name }) => name);
  },
  async instance({ options }) {
    const { instances } = await connectSupervisor(options.registry).status();
    return instances.map(({ id, slot }) => id ?? slot);
  },
  async tool({ operands: [service = ''], options }) {
    const tools = await listTools(connectGateway(options.url), service);
    return tools.map(({ name }) => String(name));
  },
};
