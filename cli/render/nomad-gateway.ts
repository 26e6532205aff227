import type { Block } from './hcl.ts';
import { inSecrets, mount, secretFile, UPDATE } from './nomad-parts.ts';
import { GATEWAY_PORT, GATEWAY_SECRETS, gatewayEnvironment, IMAGE_USER } from './workload.ts';

/** Space for what the folder of an allocation holds beside secrets: the socket, plugin.json. */
const SHARED = '/alloc/data';

/** Kong and its plugin server, in the folder of one allocation. */
export function gatewayGroup(): Block {
  return {
    type: 'group',
    labels: ['gateway'],
    attributes: { count: 1 },
    blocks: [
      UPDATE,
      {
        type: 'network',
        blocks: [{ type: 'port', labels: ['gateway'], attributes: { static: GATEWAY_PORT } }],
      },
      pluginServer(),
      kong(),
    ],
  };
}

function pluginServer(): Block {
  return {
    type: 'task',
    labels: ['plugin-server'],
    attributes: { driver: 'docker' },
    blocks: [
      // Kong is started anew until plugin.json is there.
      { type: 'lifecycle', attributes: { hook: 'prestart', sidecar: true } },
      {
        type: 'config',
        attributes: {
          image: '${var.plugin_server_image}',
          args: [SHARED],
          network_mode: 'host',
          cap_drop: ['all'],
          security_opt: ['no-new-privileges'],
          mounts: [mount('/config', '/etc/mcp-mesh')],
        },
      },
      {
        type: 'env',
        attributes: {
          ...inSecrets(gatewayEnvironment()),
          CONSUL_HTTP_ADDR: '127.0.0.1:8500',
          // The network is the host's own.
          MESH_GATEWAY_METRICS_HOST: '127.0.0.1',
        },
      },
      ...GATEWAY_SECRETS.map(name => secretFile('gateway', name)),
      { type: 'resources', attributes: { cpu: 500, memory: 512 } },
    ],
  };
}

function kong(): Block {
  return {
    type: 'task',
    labels: ['kong'],
    attributes: { driver: 'docker', kill_signal: 'SIGQUIT', kill_timeout: '90s' },
    blocks: [
      {
        type: 'config',
        attributes: {
          image: '${var.kong_image}',
          network_mode: 'host',
          group_add: [String(IMAGE_USER)],
          cap_drop: ['all'],
          security_opt: ['no-new-privileges'],
          mounts: [
            mount('/kong/kong.conf', '/etc/kong/kong.conf'),
            mount('/kong/kong.yml', '/etc/kong/kong.yml'),
          ],
        },
      },
      {
        type: 'env',
        attributes: {
          KONG_PLUGINSERVER_MESH_SOCKET: `${SHARED}/mesh.sock`,
          KONG_PLUGINSERVER_MESH_QUERY_CMD: `cat ${SHARED}/plugin.json`,
        },
      },
      { type: 'resources', attributes: { cpu: 1000, memory: 1024 } },
    ],
  };
}
