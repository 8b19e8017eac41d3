import { execFile, spawnSync } from 'node:child_process';
import { afterAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';

/** libmemcached's own test of a server's protocol, against a follower. */
const installed = spawnSync('memccapable', ['-h', '0', '-T', '0', '-V']).error === undefined;
if (!installed) console.warn("skipped: no memccapable on this machine (Debian's libmemcached-tools)");
const TESTS = 27;

let cluster: Cluster;
showLogOfFailure(() => cluster);
afterAll(() => cluster?.stop());

describe.skipIf(!installed)('memccapable', () => {
  it(`passes ${TESTS} of ${TESTS} tests against a follower`, async () => {
    cluster = await startCluster({ inProcess: true });
    const [follower = 0] = await cluster.followers();
    const { host, clientPort } = cluster.node(follower);
    const output = await run(['-a', '-h', host, '-p', `${clientPort}`]);
    expect(output.match(/\[pass\]/g) ?? [], output).toHaveLength(TESTS);
    expect(output).not.toMatch(/\[FAIL\]/i);
    expect(output).toContain('All tests passed');
  });
});

function run(args: readonly string[]): Promise<string> {
  return new Promise((resolve) => {
    execFile('memccapable', args, { timeout: 120_000 }, (error, stdout, stderr) => {
      resolve(`${stdout}${stderr}${error === null ? '' : error.message}`);
    });
  });
}
