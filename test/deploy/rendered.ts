import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { fileURLToPath } from 'node:url';
import { renderFiles } from '../../cli/render/run.ts';
import type { Files } from '../../cli/render/workload.ts';

export const ROOT = fileURLToPath(new URL('../..', import.meta.url));
export const REGISTRY = join(ROOT, 'config/mcp-mesh-registry.yaml');

/** Everything that a registry can say which deployments differ by. */
export const RICH_REGISTRY = `
version: 1
mcp_services:
  - { name: plain, command: node }
  - name: snake_case
    command: npx
    args: [-y, "server@\${VERSION:-latest}"]
    env: { TOKEN: "\${GITHUB_TOKEN}", URL: "https://\${HOST_NAME:-x}/%{y}\\"z" }
    env_allow: [HOME, PATH, LANG]
    instances: { min: 0, max: 7, target_in_flight: 5 }
    tool_timeouts: { slow: 300000 }
    isolation: session
    limits: { memory_mb: 512, processes: 8 }
    pool: { max: 3 }
  - { name: n-fixed, command: ./server.sh, instances: 4, port_range: [11200, 11209] }
`;

export function folderFor(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'mesh-deploy-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** The files of a kind, for the registry that ships and for one that has everything. */
export function renderings(t: TestContext, kind: string): { shipped: Files; rich: Files } {
  const path = join(folderFor(t), 'registry.yaml');
  writeFileSync(path, RICH_REGISTRY);
  return { shipped: renderFiles(kind, REGISTRY), rich: renderFiles(kind, path) };
}

export function readRoot(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8');
}
