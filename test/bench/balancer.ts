import { STRATEGIES } from '../../kong-plugin/balancer/balancer.ts';
import { Load } from '../../kong-plugin/balancer/load.ts';
import type { Candidate } from '../../kong-plugin/balancer/strategy.ts';

/** Time of one choice among N instances, by strategy: `node test/bench/balancer.ts`. Bar: 20 µs at 1,000. */

const PICKS = 20_000;
const SIZES = [10, 100, 1000];

console.log(`Node ${process.version}; microseconds for one choice with two fallbacks, mean of ${PICKS}`);
for (const [name, create] of STRATEGIES) {
  const cells = SIZES.map(size => {
    const candidates = makeCandidates(size);
    const strategy = create();
    const run = (picks: number) => {
      for (let i = 0; i < picks; i += 1)
        strategy.pick(candidates, { key: `10.0.${i & 255}.1`, now: 1000 + i }, 3);
    };
    run(PICKS / 4);
    const start = performance.now();
    run(PICKS);
    return `${size}: ${(((performance.now() - start) * 1000) / PICKS).toFixed(2)}`;
  });
  console.log(`${name.padEnd(18)} ${cells.join('   ')}`);
}

function makeCandidates(count: number): Candidate[] {
  return Array.from({ length: count }, (_, i) => {
    const load = new Load();
    load.inFlight = i % 7;
    const instance = {
      id: `mcp-a-host-${i}`,
      service: 'mcp-a',
      node: 'host',
      address: '10.0.0.1',
      port: i,
      tags: [],
      meta: {},
      weights: { passing: 1 + (i % 100), warning: 1 },
      status: 'passing' as const,
      reason: '',
    };
    return { instance, load };
  });
}
