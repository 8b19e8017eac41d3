import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { statusCommand } from '../../../src/cli/commands/status.ts';

/** Nodes that answer `/status` with what a test tells them to. */

let folder: string;
let servers: Server[];
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-status-'));
  servers = [];
});
afterEach(async () => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true });
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
});

async function serve(body: string): Promise<number> {
  const server = createServer((_request, response) => response.end(body));
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return typeof address === 'object' && address ? address.port : 0;
}

/** A port that was free a moment ago. */
async function closedPort(): Promise<number> {
  const port = await serve('');
  await new Promise((resolve) => servers.pop()?.close(resolve));
  return port;
}

const CLUSTER_ID = '0123456789abcdef'.repeat(2);

const answer = (nodeId: number, term: number, leader: number, changes: object = {}) =>
  JSON.stringify({
    cluster: 'demo',
    nodeId,
    version: '1.0.0',
    ready: leader !== 0,
    reason: leader === 0 ? 'no leader' : '',
    replica: {
      role: leader === nodeId ? 'leader' : 'follower',
      term,
      leader,
      commitIndex: 41,
      appliedIndex: 40,
      logBytes: 64 * 1024 * 1024,
      nodeId,
      clusterId: CLUSTER_ID,
      lifecycle: 'normal',
      voters: [1, 2, 3],
      learners: [],
      snapshotIndex: nodeId === 1 ? 30 : 0,
      snapshotBytes: 2048,
      snapshotting: nodeId === 3,
      healthProblem: '',
    },
    ...changes,
  });

/** Runs the command against one node per body; null is a node that is not there. */
async function status(bodies: readonly (string | null)[], json = false): Promise<{ code: number; output: string }> {
  const adminPorts = await Promise.all(bodies.map((body) => (body === null ? closedPort() : serve(body))));
  const nodes = adminPorts.map((adminPort, i) => ({
    id: i + 1,
    host: '127.0.0.1',
    clientPort: i + 1,
    peerPort: i + 101,
    adminPort,
  }));
  const config = join(folder, 'cluster.json');
  writeFileSync(config, JSON.stringify({ cluster: 'demo', nodes }));
  let output = '';
  vi.spyOn(process.stdout, 'write').mockImplementation((text) => {
    output += String(text);
    return true;
  });
  const code = await statusCommand({ config, json });
  return { code, output };
}

describe('raftkv status', () => {
  it('shows every node, and succeeds where a majority agrees on a leader', async () => {
    const { code, output } = await status([answer(1, 3, 2), answer(2, 3, 2), null]);
    expect(code).toBe(0);
    expect(output).toBe(
      [
        'node  clients      role      term  leader  committed  applied  log       snapshot  state',
        '1     127.0.0.1:1  follower  3     2       41         40       64.0 MiB  2.0 KiB   ready',
        '2     127.0.0.1:2  leader    3     2       41         40       64.0 MiB  -         ready',
        '3     127.0.0.1:3  -         -     -       -          -        -         -         unreachable: connection refused',
        '',
        `Cluster id: ${CLUSTER_ID}.`,
        'Cluster demo: node 2 leads.',
        '',
      ].join('\n'),
    );
  });

  it.each<[what: string, bodies: (string | null)[]]>([
    ['no node is there', [null, null, null]],
    ['a minority names a leader', [answer(1, 3, 1), null, null]],
    ['the nodes name leaders of different terms', [answer(1, 3, 1), answer(2, 4, 1), null]],
    ['the nodes name different leaders', [answer(1, 3, 1), answer(2, 3, 2), null]],
    ['the nodes know no leader', [answer(1, 3, 0), answer(2, 3, 0), answer(3, 3, 0)]],
    [
      'the nodes still recover',
      [1, 2, 3].map((id) => answer(id, 0, 0, { replica: null, ready: false, reason: 'recovering' })),
    ],
  ])('fails where %s', async (_what, bodies) => {
    const { code, output } = await status(bodies);
    expect(code).toBe(1);
    expect(output).toMatch(/has no leader that a majority of its 3 voters follows\.\n$/);
  });

  it('counts neither a node of another cluster nor another node of this one', async () => {
    const { code, output } = await status([answer(1, 3, 2, { cluster: 'other' }), answer(1, 3, 2), answer(3, 3, 2)]);
    expect(code).toBe(1);
    expect(output).toContain('unreachable: the server is node 1 of cluster other');
    expect(output).toContain('unreachable: the server is node 1 of cluster demo');
  });

  it.each(['<html>', '{}', 'null', '{"cluster":"demo","nodeId":1,"ready":true,"replica":5}'])(
    'sees that %s is no answer',
    async (body) => {
      expect((await status([body])).output).toContain('unreachable: the server is not a raftkv node');
    },
  );

  it('counts voters, not learners, and reports health problems', async () => {
    const replicaOf = (id: number, changes: object) => {
      const { replica } = JSON.parse(answer(id, 3, 2));
      return answer(id, 3, 2, { replica: { ...replica, ...changes } });
    };
    const members = { voters: [2, 4, 5], learners: [1], healthProblem: 'the disk of node 2 is full' };
    const { code, output } = await status([replicaOf(1, members), replicaOf(2, members), null]);
    expect(code).toBe(1);
    expect(output).toMatch(/^1 .* learner /m);
    expect(output).toMatch(/Health problem: the disk of node 2 is full\nNot in cluster\.json, but members: 4, 5\.\n$/);
    const alone = { voters: [2], learners: [1] };
    const second = await status([replicaOf(1, alone), replicaOf(2, alone), null]);
    expect(second.code).toBe(0);
    expect(second.output).toContain('not a member, and unreachable: connection refused');
  });

  it('shows a node that has no vote as what it is', async () => {
    const { replica } = JSON.parse(answer(1, 3, 2));
    const recovering = answer(1, 3, 2, { replica: { ...replica, lifecycle: 'recovering' } });
    expect((await status([recovering, answer(2, 3, 2), null])).output).toMatch(/^1 .* recovering /m);
  });

  it('does not read an endless answer', async () => {
    expect((await status(['x'.repeat(100_000)])).output).toContain('unreachable: the response is too large');
  });

  it('gives JSON to a program', async () => {
    const { code, output } = await status([answer(1, 3, 2), answer(2, 3, 2), null], true);
    expect(code).toBe(0);
    const body = JSON.parse(output);
    expect(body).toMatchObject({ cluster: 'demo', leader: 2, serves: true });
    expect(body.nodes[0]).toMatchObject({ id: 1, reachable: true, replica: { term: 3, commitIndex: 41 } });
    expect(body.nodes[2]).toMatchObject({ id: 3, reachable: false, error: 'connection refused' });
  });

  it('gives null as the leader where there is none', async () => {
    const { code, output } = await status([null], true);
    expect(code).toBe(1);
    expect(JSON.parse(output)).toMatchObject({ leader: null, serves: false });
  });

  it('names a node of another history, and goes by those that have a leader, whatever term it is in', async () => {
    const other = 'f'.repeat(32);
    const { replica } = JSON.parse(answer(3, 9, 0)) as { replica: object };
    const apart = answer(3, 9, 0, { replica: { ...replica, clusterId: other } });
    const { code, output } = await status([answer(1, 3, 2), answer(2, 3, 2), apart]);
    expect(code).toBe(0);
    expect(output).toContain(`Cluster id: ${CLUSTER_ID}.`);
    expect(output).toMatch(new RegExp(`Node 3 belongs to another history, cluster id ${other}`));
  });
});
