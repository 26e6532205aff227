import { report } from './harness/number.ts';
import { measureStampede } from './harness/stampede.ts';

/** Three gateways with load reports 2 s old, and wrong: real workers, gateways and plugins. */

const shape = { gateways: 3, instances: 6, calls: 100, paceMs: 900, waiting: 8 };
report({
  what: `Stampede: ${shape.gateways} gateways, reports 2 s old, ${shape.calls} calls each: largest share of ${shape.instances} / fair share`,
  value: await measureStampede(shape),
  bar: 2,
});
