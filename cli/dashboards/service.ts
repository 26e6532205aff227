import { bars, type Dashboard, lines, type Query, SERVICE } from './panel.ts';

const quantiles = (rule: string): Query[] =>
  ['p50', 'p95', 'p99'].map(quantile => ({
    expr: `${rule}:${quantile}{service=~"$service"}`,
    legend: `{{service}} ${quantile}`,
  }));

/** One service: how much, how fast, how well, and by which tool and instance. */
export const service: Dashboard = {
  uid: 'mcp-mesh-service',
  title: 'MCP mesh: service',
  description:
    'One service: how much is asked of it, how fast and how well it answers, by tool and by instance.',
  variables: [SERVICE],
  panels: [
    lines(
      'Requests by status',
      [
        {
          expr: 'sum by (service, status) (rate(mcp_mesh_gateway_requests_total{service=~"$service"}[5m]))',
          legend: '{{service}} {{status}}',
        },
      ],
      {
        unit: 'reqps',
        description: 'At the gateway. MCP answers most failures of a call with 200 and an error inside.',
      },
    ),
    lines('Time to answer', quantiles('service:mcp_mesh_gateway_request_duration_seconds'), { unit: 's' }),
    lines(
      'Errors by code',
      [
        {
          expr: 'sum by (service, code) (rate(mcp_mesh_worker_errors_total{service=~"$service"}[5m]))',
          legend: '{{service}} {{code}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines(
      'Queue wait and execution, p95',
      [
        {
          expr: 'service:mcp_mesh_worker_queue_wait_seconds:p95{service=~"$service"}',
          legend: '{{service}} waits',
        },
        {
          expr: 'service:mcp_mesh_worker_execution_seconds:p95{service=~"$service"}',
          legend: '{{service}} executes',
        },
      ],
      { unit: 's', description: 'Waiting: too few places. Execution: the tool, or what it calls.' },
    ),
    lines(
      'Calls by method',
      [
        {
          expr: 'sum by (method) (rate(mcp_mesh_worker_request_duration_seconds_count{service=~"$service"}[5m]))',
          legend: '{{method}}',
        },
      ],
      { unit: 'reqps' },
    ),
    bars(
      'Most used tools',
      {
        expr: 'topk(10, service_tool:mcp_mesh_worker_tool_calls:rate5m{service=~"$service"})',
        legend: '{{service}} {{tool}}',
      },
      { unit: 'reqps' },
    ),
    lines(
      'Tools: success',
      [
        {
          expr: '1 - service_tool:mcp_mesh_worker_tool_calls:error_ratio5m{service=~"$service"}',
          legend: '{{service}} {{tool}}',
        },
      ],
      {
        unit: 'percentunit',
        description: "Calls that ended well, of all; a tool's own errors (isError) count as errors.",
      },
    ),
    lines(
      'Tools: p95',
      [
        {
          expr: 'service_tool:mcp_mesh_worker_tool_call_duration_seconds:p95{service=~"$service"}',
          legend: '{{service}} {{tool}}',
        },
      ],
      { unit: 's' },
    ),
    lines(
      'Tools: outcomes',
      [
        {
          expr: 'sum by (tool, outcome) (rate(mcp_mesh_worker_tool_calls_total{service=~"$service"}[5m]))',
          legend: '{{tool}} {{outcome}}',
        },
      ],
      { unit: 'reqps' },
    ),
    lines(
      'Calls by instance',
      [{ expr: 'instance:mcp_mesh_worker_requests:rate5m{service=~"$service"}', legend: '{{instance}}' }],
      { unit: 'reqps' },
    ),
    lines(
      'Skew between instances',
      [{ expr: 'service:mcp_mesh_worker_requests:skew{service=~"$service"}', legend: '{{service}}' }],
      { description: '1: all instances get the same. 3: the busiest one gets three times the mean.' },
    ),
    lines(
      'Bytes of messages',
      [
        {
          expr: 'sum by (service, direction) (rate(mcp_mesh_worker_message_bytes_total{service=~"$service"}[5m]))',
          legend: '{{service}} {{direction}}',
        },
      ],
      { unit: 'Bps' },
    ),
  ],
};
