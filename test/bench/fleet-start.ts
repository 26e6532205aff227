import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { descendants, ROOT, startMesh } from '../e2e/mesh-process.ts';

/**
 * Time until `npm start` has so many instances up and passing: `node test/bench/fleet-start.ts [instances]`. The CPU
 * that it takes is told beside it, since on a busy machine the time says little.
 */

const COUNT = Number(process.argv[2] ?? 50);
const TICKS_PER_SECOND = 100;

const folder = mkdtempSync(join(tmpdir(), 'mesh-bench-'));
const registry = join(folder, 'registry.yaml');
const server = join(ROOT, 'test/fixtures/servers/scripted.mjs');
const services = ['a', 'b', 'c', 'd', 'e'].map(name => ({
  name,
  command: process.execPath,
  args: [server],
  instances: COUNT / 5,
}));
writeFileSync(registry, JSON.stringify({ version: 1, mcp_services: services }));
const startedAt = performance.now();
const mesh = await startMesh({ MESH_REGISTRY: registry, MESH_STATE_DIR: folder });
const seconds = (performance.now() - startedAt) / 1000;
const cpu = [mesh.pid, ...descendants(mesh.pid).map(({ pid }) => pid)].map(cpuSeconds);
const sum = cpu.reduce((total, value) => total + value, 0);
console.log(`${COUNT} instances: ready after ${seconds.toFixed(1)} s, with ${sum.toFixed(1)} s of CPU`);
await mesh.stop();
rmSync(folder, { recursive: true });

/** Of one process, its ended children included (Linux, proc(5)). */
function cpuSeconds(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return fields.slice(11, 15).reduce((total, ticks) => total + Number(ticks), 0) / TICKS_PER_SECOND;
}
