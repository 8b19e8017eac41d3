// `raftkv node` around a node that only pretends: `node-process.mjs <config> <id> <how it behaves>`. It runs the built
// program, because that starts in half the time.
import { readSync } from 'node:fs';
import { createServer } from 'node:net';
import { RaftkvError } from '../../../dist/base/errors.js';
import { nodeCommand } from '../../../dist/cli/commands/node.js';
import { describeError, exitCodeOf } from '../../../dist/cli/terminal/output.js';

const [config = '', id = '', behaviour = ''] = process.argv.slice(2);

const damaged = () => new RaftkvError('WAL_DAMAGED', 'segment 3 is damaged', 'Restore it.');

/** @type {import('../../../src/cli/node/types.ts').RunNode} */
const pretend = async (_config, nodeId, { onEvent }) => {
  if (behaviour === 'refuses') throw damaged();
  // Something open, as a real node has.
  const port = createServer().listen(0, '127.0.0.1');
  onEvent({ kind: 'listening' });
  onEvent({ kind: 'leaderChanged', leader: nodeId, term: 4 });
  onEvent({ kind: 'serving' });
  if (behaviour === 'is removed') setImmediate(() => onEvent({ kind: 'removed' }));
  if (behaviour === 'breaks') setImmediate(() => onEvent({ kind: 'fatal', error: damaged() }));
  if (behaviour === 'is busy') {
    setImmediate(() => {
      // Hears nothing until the test writes a byte.
      readSync(0, Buffer.alloc(1));
      onEvent({ kind: 'leaderChanged', leader: 0, term: 5 });
    });
  }
  if (behaviour === 'throws') {
    setImmediate(() => {
      throw new Error('a bug');
    });
  }
  if (behaviour === 'rejects') void Promise.reject(new Error('a bug'));
  return {
    reload() {
      onEvent({ kind: 'leaderChanged', leader: 0, term: 6 });
    },
    stop() {
      if (behaviour === 'never stops') return new Promise(() => {});
      if (behaviour === 'fails to stop') return Promise.reject(damaged());
      return new Promise((resolve) => port.close(() => resolve()));
    },
  };
};

try {
  await nodeCommand({ config, id: Number(id) }, pretend);
} catch (error) {
  process.stderr.write(`${describeError(error)}\n`);
  process.exit(exitCodeOf(error));
}
