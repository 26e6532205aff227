import { bands, bars, type Dashboard, lines, SERVICE, stat, table } from './panel.ts';

const UP = { 0: { text: 'down', color: 'red' }, 1: { text: 'up', color: 'green' } };

/** All services and instances at a glance: what is up, what is busy, what is wrong. */
export const fleet: Dashboard = {
  uid: 'mcp-mesh-fleet',
  title: 'MCP mesh: fleet',
  description: 'All services and their instances: what is up, what is busy, what is wrong.',
  variables: [SERVICE],
  panels: [
    stat('Services', 'max(mcp_mesh_catalogue_services)'),
    stat(
      'Healthy instances',
      'sum(max by (service) (mcp_mesh_gateway_instances{service=~"$service", state="passing"}))',
    ),
    stat(
      'Instances that are not',
      'sum(max by (service, state) (mcp_mesh_gateway_instances{service=~"$service", state!="passing"}))',
      { thresholds: [1, 2] },
    ),
    stat('Calls a second', 'sum(service:mcp_mesh_worker_requests:rate5m{service=~"$service"})', {
      unit: 'reqps',
    }),
    stat(
      'Worst ratio of faults',
      'max(service:mcp_mesh_worker_requests:error_ratio5m{service=~"$service"})',
      {
        unit: 'percentunit',
        thresholds: [0.01, 0.1],
      },
    ),
    stat('Alerts', 'count(ALERTS{alertstate="firing", alertname=~"Mcp.+"}) or vector(0)', {
      thresholds: [1, 3],
    }),
    table(
      'Instances',
      [
        'max by (service, instance, node) (mcp_mesh_worker_child_up{service=~"$service"})',
        'max by (service, instance, name, version, era, protocol) (mcp_mesh_worker_child_info{service=~"$service"})',
        'max by (service, instance) (mcp_mesh_worker_child_uptime_seconds{service=~"$service"})',
      ],
      { description: 'Value A: 1 when its MCP server is up; C: seconds since then.' },
    ),
    bands(
      'MCP servers',
      { expr: 'max by (instance) (mcp_mesh_worker_child_up{service=~"$service"})', legend: '{{instance}}' },
      UP,
    ),
    bars(
      'Most used services',
      {
        expr: 'topk(10, service:mcp_mesh_worker_requests:rate5m{service=~"$service"})',
        legend: '{{service}}',
      },
      { unit: 'reqps', width: 12 },
    ),
    lines(
      'Calls',
      [{ expr: 'service:mcp_mesh_worker_requests:rate5m{service=~"$service"}', legend: '{{service}}' }],
      { unit: 'reqps' },
    ),
    lines(
      'Ratio of faults',
      [
        {
          expr: 'service:mcp_mesh_worker_requests:error_ratio5m{service=~"$service"}',
          legend: '{{service}}',
        },
      ],
      {
        unit: 'percentunit',
        description: 'Calls that ended in a fault of the mesh or the server, of all calls.',
      },
    ),
    lines(
      'p95 at the gateway',
      [
        {
          expr: 'service:mcp_mesh_gateway_request_duration_seconds:p95{service=~"$service"}',
          legend: '{{service}}',
        },
      ],
      { unit: 's' },
    ),
    lines(
      'Places taken',
      [
        {
          expr: 'instance:mcp_mesh_worker_concurrency:saturation{service=~"$service"}',
          legend: '{{instance}}',
        },
      ],
      { unit: 'percentunit', description: 'Calls inside the server, of those that may be at once.' },
    ),
    lines(
      'Queue',
      [{ expr: 'instance:mcp_mesh_worker_queue:saturation{service=~"$service"}', legend: '{{instance}}' }],
      {
        unit: 'percentunit',
        description: 'Calls that wait, of those that may. When it is full: 503 queue_full.',
      },
    ),
    lines(
      "Server's memory, of its limit",
      [
        {
          expr: 'instance:mcp_mesh_worker_child_memory:saturation{service=~"$service"}',
          legend: '{{instance}}',
        },
      ],
      { unit: 'percentunit' },
    ),
  ],
};
