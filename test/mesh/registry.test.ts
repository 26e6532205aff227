import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { findService, loadRegistry, publicDefinition, RegistryError } from '../../mesh/registry.ts';

const folder = mkdtempSync(join(tmpdir(), 'mesh-registry-'));
process.on('exit', () => rmSync(folder, { recursive: true }));
let files = 0;

function load(yaml: string, env: Record<string, string> = {}, only?: string) {
  files += 1;
  const path = join(folder, `${files}.yaml`);
  writeFileSync(path, yaml);
  return loadRegistry(path, { env, ...(only === undefined ? {} : { only }) });
}

function faultsOf(yaml: string, env?: Record<string, string>): string[] {
  try {
    load(yaml, env);
  } catch (error) {
    assert.ok(error instanceof RegistryError);
    return error.message.split('\n').map(line => line.replace(/^.*\.yaml:/, ''));
  }
  assert.fail('the registry was accepted');
}

describe('a broken registry is refused with line, field and cure', () => {
  const cases = [
    {
      desc: 'unknown key',
      yaml: 'mcp_services:\n  - name: a\n    command: x\n    instnces: 3',
      want: '4: mcp_services[0].instnces: unknown key; did you mean "instances"?',
    },
    {
      desc: 'unknown key in a nested setting',
      yaml: 'mcp_services:\n  - name: a\n    command: x\n    limits:\n      memry_mb: 3',
      want: '5: mcp_services[0].limits.memry_mb: unknown key; did you mean "memory_mb"?',
    },
    {
      desc: 'unknown key at the top',
      yaml: 'mcp_service: []',
      want: '1: mcp_services: is missing; give it a value (array)',
    },
    {
      desc: 'unknown key in defaults',
      yaml: 'defaults: { timeot_ms: 1 }\nmcp_services: []',
      want: '1: defaults.timeot_ms: unknown key; did you mean "timeout_ms"?',
    },
    {
      desc: 'missing command',
      yaml: 'mcp_services:\n  - name: a',
      want: '2: mcp_services[0].command: is missing; give it a value (string)',
    },
    {
      desc: 'duplicate name',
      yaml: 'mcp_services:\n  - { name: a, command: x }\n  - { name: a, command: y }',
      want: '3: mcp_services[1].name: "a" is already mcp_services[0]; choose another',
    },
    {
      desc: 'names that become one in Consul',
      yaml: 'mcp_services:\n  - { name: a_b, command: x }\n  - { name: a-b, command: y }',
      want: '3: mcp_services[1].name: "mcp-a-b" is already mcp_services[0]; choose another',
    },
    {
      desc: 'overlapping ports',
      yaml: 'mcp_services:\n  - { name: a, command: x, port_range: [1000, 1009] }\n  - { name: b, command: y, port_range: [1009, 1010] }',
      want: '3: mcp_services[1].port_range: overlaps with port_range of "a"; keep them apart',
    },
    {
      desc: 'too few ports',
      yaml: 'mcp_services:\n  - { name: a, command: x, instances: 3, port_range: [1000, 1001] }',
      want: '2: mcp_services[0].port_range: 2 ports do not hold 3 instances; widen the range',
    },
    {
      desc: 'min above max',
      yaml: 'mcp_services:\n  - { name: a, command: x, instances: { min: 3, max: 1 } }',
      want: '2: mcp_services[0].instances.min: min 3 is more than max 1',
    },
    {
      desc: 'unset variable',
      yaml: 'mcp_services:\n  - name: a\n    command: x\n    env:\n      TOKEN: "${GITHUB_TOKEN}"',
      want: '5: mcp_services[0].env.TOKEN: the variable GITHUB_TOKEN is not set; set it, or write ${GITHUB_TOKEN:-default}',
    },
    {
      desc: 'wrong strategy',
      yaml: 'mcp_services:\n  - { name: a, command: x, load_balancer: RANDM }',
      want: '2: mcp_services[0].load_balancer: "RANDM" is not one of ROUND_ROBIN, LEAST_CONNECTIONS, WEIGHTED, RANDOM, IP_HASH, ADAPTIVE; did you mean "RANDOM"?',
    },
    {
      desc: 'name with capitals',
      yaml: 'mcp_services:\n  - { name: GitHub, command: x }',
      want: '2: mcp_services[0].name: must be lower-case letters, digits, "-" and "_", 63 at most, not starting with a sign',
    },
    {
      desc: 'health check with a pattern',
      yaml: 'mcp_services:\n  - { name: a, command: x, health_check: "/:all*" }',
      want: '2: mcp_services[0].health_check: must be a path of letters, digits and "/", "-", ".", "_", "~"',
    },
    {
      desc: 'health check with a path of another use',
      yaml: 'mcp_services:\n  - { name: a, command: x, health_check: /metrics }',
      want: '2: mcp_services[0].health_check: is a path that workers answer otherwise; choose another',
    },
    {
      desc: 'not YAML',
      yaml: 'mcp_services:\n  - name: "a\n    command: x',
      want: /^\d+: Missing closing "quote/,
    },
    {
      desc: 'key twice',
      yaml: 'version: 1\nversion: 1\nmcp_services: []',
      want: /^2: Map keys must be unique/,
    },
    {
      desc: 'list of texts',
      yaml: 'mcp_services: [x]',
      want: '1: mcp_services[0]: invalid input: expected object, received string',
    },
  ];
  for (const { desc, yaml, want } of cases) {
    test(desc, () => {
      const [first] = faultsOf(yaml);
      if (typeof want === 'string') assert.equal(first, want);
      else assert.match(first ?? '', want);
    });
  }

  test('every fault is reported at once', () => {
    assert.equal(faultsOf('mcp_services:\n  - { name: a }\n  - { name: b, command: x, foo: 1 }').length, 2);
  });

  test('a file that is not there names the setting', () => {
    assert.throws(
      () => loadRegistry('/nowhere/r.yaml', { env: {} }),
      /\/nowhere\/r.yaml: cannot be read \(ENOENT\); MESH_REGISTRY/,
    );
  });
});

test('the full form of the design loads', () => {
  const [service] = load(
    `version: 1
defaults: { instances: 1, load_balancer: ADAPTIVE, timeout_ms: 60000 }
mcp_services:
  - name: language-server
    service_name: mcp-language-server
    command: npx
    args: ["-y", "some-server"]
    env: { GITHUB_TOKEN: "\${GITHUB_TOKEN}" }
    env_allow: [HOME, PATH]
    cwd: /srv/data
    instances: { min: 1, max: 8, target_in_flight: 4 }
    port_range: [11100, 11109]
    health_check: /health
    tags: [mcp, language]
    capabilities: [python, typescript]
    load_balancer: ROUND_ROBIN
    weight: 100
    circuit_breaker: { failure_threshold: 5, recovery_timeout: 30 }
    isolation: shared
    concurrency: 256
    queue: 1024
    timeout_ms: 60000
    tool_timeouts: { slow_tool: 300000 }
    retry: { attempts: 3, base_ms: 100, max_ms: 2000 }
    limits: { memory_mb: 1024, open_files: 1024, processes: 64, request_bytes: 8388608, line_bytes: 16777216, batch: 20 }
    recycle: { max_calls: 0, max_age_s: 0, max_rss_mb: 0 }
    costs: { expensive_tool: 20 }
    validate_arguments: false
    legacy_url: null
    traffic_percent: 100
`,
    { GITHUB_TOKEN: 'ghp_x' },
  ).services;
  assert.equal(service?.env.GITHUB_TOKEN, 'ghp_x');
  assert.deepEqual(service?.port_range, [11100, 11109]);
});

test('a service says what it wants and inherits the rest, nested settings key by key', () => {
  const [a, b] = load(`
defaults: { timeout_ms: 5, limits: { memory_mb: 7, batch: 3 } }
mcp_services:
  - { name: a, command: x, limits: { batch: 4 } }
  - { name: b_c, command: x, timeout_ms: 6 }
`).services;
  assert.deepEqual([a?.timeout_ms, a?.limits.memory_mb, a?.limits.batch, a?.limits.processes], [5, 7, 4, 64]);
  assert.deepEqual([b?.timeout_ms, b?.limits.batch, b?.service_name], [6, 3, 'mcp-b-c']);
});

test('variables are filled from the environment, with defaults, in every text of the command line', () => {
  const yaml =
    'mcp_services:\n  - { name: a, command: "${X}/run", args: ["${Y:-none}", "$Z", "${E:-}"], cwd: "${X}" }';
  const service = findService(load(yaml, { X: '/opt' }), 'a');
  assert.deepEqual([service.command, ...service.args, service.cwd], ['/opt/run', 'none', '$Z', '', '/opt']);
});

test("a worker needs its own service's variables and nobody else's", () => {
  const yaml =
    'mcp_services:\n  - { name: a, command: x }\n  - { name: b, command: x, env: { T: "${SECRET}" } }';
  assert.equal(findService(load(yaml, {}, 'a'), 'a').command, 'x');
  assert.throws(() => load(yaml, {}, 'b'), /SECRET is not set/);
});

test('an unknown service is answered with the nearest name', () => {
  const registry = load('mcp_services:\n  - { name: github, command: x }');
  assert.throws(
    () => findService(registry, 'gihub'),
    /no service "gihub"; did you mean "github"\?; there are: github/,
  );
});

test('what gateways may read tells nothing of how a server is started', () => {
  const yaml =
    'mcp_services:\n  - { name: a, command: secret-cmd, args: [secret-arg], env: { K: secret-env }, cwd: /secret }';
  const text = JSON.stringify(publicDefinition(findService(load(yaml), 'a')));
  assert.doesNotMatch(text, /secret/);
  assert.match(text, /"load_balancer":"ADAPTIVE"/);
});
