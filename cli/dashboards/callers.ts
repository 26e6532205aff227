import { type Dashboard, lines, SERVICE, stat, table } from './panel.ts';

/** What callers are refused; not who they are, which the audit log says. */
export const callers: Dashboard = {
  uid: 'mcp-mesh-callers',
  title: 'MCP mesh: callers',
  description:
    'What callers ask for, and what they are refused. Who they are stands in the audit log, not in a metric.',
  variables: [SERVICE],
  panels: [
    lines(
      'Refused by the gateway, by reason',
      [{ expr: 'sum by (reason) (rate(mcp_mesh_gateway_denials_total[5m]))', legend: '{{reason}}' }],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines(
      'Refused by the gateway, by service',
      [{ expr: 'sum by (service) (rate(mcp_mesh_gateway_denials_total[5m]))', legend: '{{service}}' }],
      {
        unit: 'reqps',
        description: 'other: services that do not exist. none: no service was asked for.',
        emptyWhenHealthy: true,
      },
    ),
    lines(
      'Credentials that are refused',
      [
        {
          expr: 'sum by (reason) (rate(mcp_mesh_gateway_denials_total{reason=~".+_key|.+_token|no_credential|unsupported|ambiguous|no_policy|no_issuer_keys"}[5m]))',
          legend: '{{reason}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines(
      'Limits reached',
      [
        {
          expr: 'sum by (service, reason) (rate(mcp_mesh_gateway_denials_total{service=~"$service", reason=~"rate_limited|too_many_in_flight"}[5m]))',
          legend: '{{service}} {{reason}}',
        },
        {
          expr: 'sum by (service, code) (rate(mcp_mesh_worker_errors_total{service=~"$service", code=~"rate_limited|quota_exceeded"}[5m]))',
          legend: '{{service}} {{code}}',
        },
      ],
      {
        unit: 'reqps',
        description: 'Requests per window and at once are counted by the gateway, tool calls by the workers.',
        emptyWhenHealthy: true,
      },
    ),
    lines(
      'Units taken of quotas',
      [
        {
          expr: 'sum by (service) (rate(mcp_mesh_worker_quota_units_total{service=~"$service"}[5m]))',
          legend: '{{service}}',
        },
      ],
      {
        description:
          'A second. A call takes one, or the cost of its tool; callers without a quota take none.',
      },
    ),
    lines(
      'Calls near the end of a quota',
      [
        {
          expr: 'sum by (service) (increase(mcp_mesh_worker_quota_near_end_total{service=~"$service"}[5m]))',
          legend: '{{service}}',
        },
      ],
      { description: 'In 5 minutes, by callers who had used 80 % or more.' },
    ),
    lines(
      "Callers' own errors",
      [
        {
          expr: 'sum by (service, code) (rate(mcp_mesh_worker_errors_total{service=~"$service", code=~"forbidden|unknown_tool|invalid_.+|unknown_session|cancelled"}[5m]))',
          legend: '{{service}} {{code}}',
        },
      ],
      { unit: 'reqps', emptyWhenHealthy: true },
    ),
    lines('Sessions and streams', [
      {
        expr: 'sum by (service) (mcp_mesh_worker_sessions{service=~"$service"})',
        legend: '{{service}} sessions',
      },
      {
        expr: 'sum by (service) (mcp_mesh_worker_streams{service=~"$service"})',
        legend: '{{service}} streams',
      },
    ]),
    lines(
      'Requests at the gateway',
      [{ expr: 'service:mcp_mesh_gateway_requests:rate5m{service=~"$service"}', legend: '{{service}}' }],
      { unit: 'reqps' },
    ),
    stat(
      'Limits decided without their store, 1 hour',
      'sum(increase(mcp_mesh_gateway_limit_store_failures_total[1h])) + sum(increase(mcp_mesh_worker_limit_store_failures_total[1h]))',
      {
        thresholds: [1, 10],
        width: 6,
      },
    ),
    stat(
      'Failed fetches of issuers’ keys, 1 hour',
      'sum(increase(mcp_mesh_gateway_jwks_failures_total[1h]))',
      {
        thresholds: [1, 10],
        width: 6,
      },
    ),
    stat(
      'Audit entries lost, 1 hour',
      'sum(increase(mcp_mesh_gateway_audit_entries_lost_total[1h])) + sum(increase(mcp_mesh_worker_audit_entries_lost_total[1h]))',
      { thresholds: [1, 10], width: 6 },
    ),
    stat('Policy files refused now', 'sum(mcp_mesh_gateway_policy_refused)', {
      thresholds: [1, 2],
      width: 6,
    }),
    table('Access policy in force', ['max by (gateway, version) (mcp_mesh_gateway_policy_info)'], {
      width: 24,
    }),
  ],
};
