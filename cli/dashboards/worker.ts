import { type Dashboard, INSTANCE, lines, type Panel, type Query, SERVICE, stat } from './panel.ts';

const OF = '{service=~"$service", instance=~"$instance"}';
const each = (metric: string, name: string): Query => ({
  expr: `mcp_mesh_${metric}${OF}`,
  legend: `{{instance}} ${name}`,
});
const single = (title: string, metric: string, name: string, unit: string, description?: string): Panel =>
  lines(title, [each(metric, name)], { unit, ...(description === undefined ? {} : { description }) });

/** One instance: its worker and its MCP server. */
export const worker: Dashboard = {
  uid: 'mcp-mesh-worker',
  title: 'MCP mesh: worker',
  description: 'One instance: the worker and the MCP server inside it.',
  variables: [SERVICE, INSTANCE],
  panels: [
    stat('MCP servers up', `sum(mcp_mesh_worker_child_up${OF})`),
    stat('Youngest server', `min(mcp_mesh_worker_child_uptime_seconds${OF})`, { unit: 's' }),
    stat('Restarts in 1 hour', `sum(increase(mcp_mesh_worker_child_restarts_total${OF}[1h]))`, {
      thresholds: [1, 5],
    }),
    stat('Sessions', `sum(mcp_mesh_worker_sessions${OF})`),
    stat('Open streams', `sum(mcp_mesh_worker_streams${OF})`),
    stat('Servers of the pool', `sum(mcp_mesh_worker_pool_servers${OF})`),
    lines('Calls inside', [each('worker_in_flight', 'inside'), each('worker_concurrency_limit', 'limit')]),
    lines('Calls that wait', [each('worker_queue_depth', 'waiting'), each('worker_queue_limit', 'limit')]),
    lines(
      "Server's memory",
      [each('worker_child_rss_bytes', 'resident'), each('worker_child_memory_limit_bytes', 'limit')],
      { unit: 'bytes', description: 'Of all its processes. Beyond the limit it is ended and started again.' },
    ),
    lines(
      "Server's processor",
      [{ expr: `rate(mcp_mesh_worker_child_cpu_seconds_total${OF}[5m])`, legend: '{{instance}}' }],
      { unit: 'percentunit', description: '1 = one whole core.' },
    ),
    lines(
      'Restarts by reason',
      [
        {
          expr: `sum by (instance, reason) (increase(mcp_mesh_worker_child_restarts_total${OF}[5m]))`,
          legend: '{{instance}} {{reason}}',
        },
      ],
      { description: 'In 5 minutes. recycle: a planned replacement.' },
    ),
    single("Server's processes", 'worker_child_processes', '', 'none'),
    lines(
      'Retries by reason',
      [
        {
          expr: `sum by (instance, reason) (rate(mcp_mesh_worker_retries_total${OF}[5m]))`,
          legend: '{{instance}} {{reason}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    single(
      "Worker's event-loop lag, p99",
      'nodejs_eventloop_lag_p99_seconds',
      '',
      's',
      'About 10 ms are no lag: that is how often it is looked at.',
    ),
    lines(
      "Worker's memory",
      [each('process_resident_memory_bytes', 'resident'), each('nodejs_heap_size_used_bytes', 'heap')],
      { unit: 'bytes' },
    ),
    lines(
      "Worker's processor",
      [{ expr: `rate(mcp_mesh_process_cpu_seconds_total${OF}[5m])`, legend: '{{instance}}' }],
      { unit: 'percentunit' },
    ),
    single('Breaker', 'worker_breaker_open', '', 'none', '1 while it refuses calls.'),
    lines(
      'Bytes of messages',
      [
        {
          expr: `sum by (instance, direction) (rate(mcp_mesh_worker_message_bytes_total${OF}[5m]))`,
          legend: '{{instance}} {{direction}}',
        },
      ],
      { unit: 'Bps' },
    ),
  ],
};
