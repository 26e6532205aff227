import { bands, type Dashboard, lines, SERVICE } from './panel.ts';

const BREAKER = {
  0: { text: 'closed', color: 'green' },
  1: { text: 'half-open', color: 'yellow' },
  2: { text: 'open', color: 'red' },
};

/** What the mesh does about faults: breakers, retries, restarts; and the gateways that do it. */
export const resilience: Dashboard = {
  uid: 'mcp-mesh-resilience',
  title: 'MCP mesh: resilience',
  description:
    'Faults and what the mesh does about them: breakers, retries, restarts; and the gateways themselves.',
  variables: [SERVICE],
  panels: [
    bands(
      'Breakers',
      {
        expr: 'max by (instance) (mcp_mesh_gateway_instance_breaker_state{service=~"$service"})',
        legend: '{{instance}}',
      },
      BREAKER,
    ),
    lines(
      'Instances by state',
      [
        {
          expr: 'sum by (state) (max by (service, state) (mcp_mesh_gateway_instances{service=~"$service"}))',
          legend: '{{state}}',
        },
        {
          expr: 'sum(max by (service) (mcp_mesh_gateway_ejected_instances{service=~"$service"}))',
          legend: 'ejected',
        },
      ],
      { width: 12 },
    ),
    lines(
      'Breakers that opened',
      [
        {
          expr: 'sum by (service) (increase(mcp_mesh_gateway_breaker_opened_total{service=~"$service"}[5m]))',
          legend: '{{service}}',
        },
      ],
      { description: 'In 5 minutes, failed probes included.', emptyWhenHealthy: true },
    ),
    lines(
      'Tries that failed, by instance',
      [
        {
          expr: 'sum by (instance) (rate(mcp_mesh_gateway_instance_tries_total{service=~"$service", result="failed"}[5m]))',
          legend: '{{instance}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines(
      'Retries at another instance',
      [
        {
          expr: 'sum by (service) (rate(mcp_mesh_gateway_retries_total{service=~"$service"}[5m]))',
          legend: '{{service}}',
        },
      ],
      { unit: 'reqps', description: 'The connection to the first one failed.', emptyWhenHealthy: true },
    ),
    lines(
      'Retries in workers, by reason',
      [
        {
          expr: 'sum by (service, reason) (rate(mcp_mesh_worker_retries_total{service=~"$service"}[5m]))',
          legend: '{{service}} {{reason}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines(
      'Restarts by reason',
      [
        {
          expr: 'sum by (service, reason) (increase(mcp_mesh_worker_child_restarts_total{service=~"$service"}[5m]))',
          legend: '{{service}} {{reason}}',
        },
      ],
      { description: 'Of MCP servers, in 5 minutes.' },
    ),
    lines(
      'Latency that choosing goes by',
      [
        {
          expr: 'max by (instance) (mcp_mesh_gateway_instance_latency_seconds{service=~"$service"})',
          legend: '{{instance}}',
        },
      ],
      { unit: 's' },
    ),
    lines(
      'Calls and streams at instances',
      [
        {
          expr: 'sum by (instance) (mcp_mesh_gateway_instance_in_flight{service=~"$service"})',
          legend: '{{instance}} calls',
        },
        {
          expr: 'sum by (instance) (mcp_mesh_gateway_instance_streams{service=~"$service"})',
          legend: '{{instance}} streams',
        },
      ],
      { description: 'As the gateways count them.' },
    ),
    lines('Age of the catalogue', [{ expr: 'mcp_mesh_catalogue_age_seconds', legend: '{{gateway}}' }], {
      unit: 's',
      description: 'Time since Consul last answered; up to 33 s while all is well.',
    }),
    lines(
      "Gateway's event-loop lag, p99",
      [{ expr: 'mcp_mesh_nodejs_eventloop_lag_p99_seconds{job="mcp-gateway"}', legend: '{{gateway}}' }],
      { unit: 's' },
    ),
    lines(
      "Gateway's heap",
      [{ expr: 'mcp_mesh_nodejs_heap_size_used_bytes{job="mcp-gateway"}', legend: '{{gateway}}' }],
      { unit: 'bytes' },
    ),
    bands(
      'Scrapes',
      { expr: 'min by (job, service) (up{job=~"mcp-.+"})', legend: '{{job}} {{service}}' },
      { 0: { text: 'missing', color: 'red' }, 1: { text: 'scraped', color: 'green' } },
      { width: 24 },
    ),
  ],
};
