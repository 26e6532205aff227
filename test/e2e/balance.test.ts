import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { STRATEGIES } from '../../kong-plugin/balancer/balancer.ts';
import { chanceOfTies, errorOfShares, excessOfMoves, timeOfChoice } from '../bench/harness/choosing.ts';
import { measureSkewedLoad } from '../bench/harness/skewed-load.ts';
import { simulateStaleReports } from '../bench/harness/stale-reports.ts';
import { measureStampede } from '../bench/harness/stampede.ts';

/** The numbers of test/bench, scaled down, with bounds for a machine that does other things as well. */

describe('with real workers, gateways and plugins', () => {
  test('ADAPTIVE spares the one of four that is 20 times slower', { timeout: 90_000 }, async () => {
    const [round] = await measureSkewedLoad({
      paceMs: 20,
      slower: 20,
      calls: 200,
      callsPerSecond: 40,
      rounds: 1,
    });
    assert.ok(round);
    const { adaptive, roundRobin } = round;
    assert.ok(Math.abs(roundRobin.slowShare - 0.25) < 0.02, `by turns ${roundRobin.slowShare}`);
    // How much that saves is for npm run bench to say: here other tests make every instance slow now and then.
    assert.ok(adaptive.slowShare <= 0.15, `${adaptive.slowShare} of the calls went to the slow one`);
  });

  test('three gateways with reports 2 s old do not stampede', { timeout: 90_000 }, async () => {
    const shape = { gateways: 3, instances: 6, calls: 40, paceMs: 900, waiting: 32 };
    const share = await measureStampede(shape);
    // Two choices of six give the one that all believe to be idle two fair shares, and chance its part.
    assert.ok(share <= 2.8, `an instance got ${share} times its fair share`);
  });
});

describe('by exact counts', () => {
  test('WEIGHTED keeps to the weights', () => {
    assert.ok(errorOfShares([1, 5, 10, 34, 50, 100], 20_000) <= 0.03);
  });

  test('IP_HASH moves the keys that it has to and no more', () => {
    const excess = excessOfMoves(10, 20_000);
    assert.ok(Math.abs(excess) <= 0.03, `1/n and ${excess}`);
  });

  test('LEAST_CONNECTIONS breaks ties at random', () => {
    const ratio = chanceOfTies(4, 20_000);
    assert.ok(ratio > 0 && ratio <= 1.5, String(ratio));
  });

  test('reports that are always 2 s old do not make ADAPTIVE swing', () => {
    const shape = { gateways: 3, instances: 6, concurrency: 3, callMs: 10, callsPerSecond: 1800 };
    const share = simulateStaleReports({ ...shape, seconds: 10 });
    assert.ok(share <= 2.2, `an instance got ${share} times its fair share of 2 s`);
  });

  test('choosing does not become slower than the list becomes longer', () => {
    for (const [name, create] of STRATEGIES) {
      const ratio = timeOfChoice(create(), 1000, 4000) / timeOfChoice(create(), 10, 4000);
      assert.ok(ratio <= 400, `${name}: ${ratio} times as long for 100 times as many`);
    }
  });
});
