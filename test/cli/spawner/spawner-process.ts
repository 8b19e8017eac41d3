import { systemClock } from '../../../src/base/clock.ts';
import { silentLogger } from '../../../src/base/logger.ts';
import { startSpawner } from '../../../src/cli/spawner/spawner.ts';
import { FAKE_NODE_SCRIPT, fakeConfig } from '../fake-cluster.ts';

/** A spawner in its own process, for tests that kill it: `spawner-process.ts <port of the test>`. */
const [controlPort = ''] = process.argv.slice(2);
startSpawner({
  config: fakeConfig(3),
  script: FAKE_NODE_SCRIPT,
  argumentsFor: (nodeId) => [controlPort, String(nodeId)],
  clock: systemClock,
  logger: silentLogger,
  onLine() {},
  onServing() {},
});
