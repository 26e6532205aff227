import assert from 'node:assert/strict';
import { after, before, beforeEach, describe } from 'node:test';
import { startRealConsul } from '../real-consul.ts';
import { consulFaults } from './consul-faults.ts';
import { type FaultMesh, restore, startFaultMesh } from './fault-mesh.ts';
import { collectCleanUps } from './fleet-harness.ts';
import { networkFaults, type Stalled, stalledCalls } from './network-faults.ts';
import { plannedStops, processFaults } from './process-faults.ts';

const real = await startRealConsul();
const skip = real.consul ? false : process.env.CI ? false : real.reason;

describe('faults, with a real Consul', { skip }, () => {
  const cleanUps = collectCleanUps();
  const stalled: Stalled[] = [];
  let mesh: FaultMesh;
  before(async () => {
    assert.ok(real.consul, real.reason);
    mesh = await startFaultMesh(real.consul, cleanUps.add);
  });
  beforeEach(() => restore(mesh));
  after(() => cleanUps.run());
  networkFaults(() => mesh, stalled);
  processFaults(() => mesh);
  plannedStops(() => mesh);
  consulFaults(() => mesh);
  stalledCalls(() => mesh, stalled);
});
