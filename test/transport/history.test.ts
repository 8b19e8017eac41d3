import { afterEach, describe, expect, it } from 'vitest';
import { cleanUp, NO_PORT, startNode, type TestNode } from './support.ts';

/** Links between data directories of one history, of two, and of none yet (ADR 0014). */

afterEach(cleanUp);

const OWN = 'a'.repeat(32);
const OTHER = 'b'.repeat(32);

async function startTwo(clusterIds: readonly [string, string]): Promise<[TestNode, TestNode]> {
  const one = await startNode({ id: 1, peers: { 2: NO_PORT }, clusterId: clusterIds[0] });
  const two = await startNode({ id: 2, peers: { 1: one.transport.port }, clusterId: clusterIds[1] });
  return [one, two];
}

describe('nodes of two histories', () => {
  it('get no link; both hear of it, and both log both cluster ids', async () => {
    const nodes = await startTwo([OWN, OTHER]);
    await Promise.all(nodes.map((node) => node.until(() => node.events.length > 0)));
    expect(nodes.map(({ events }) => events[0])).toEqual(['foreign peer 2', 'foreign peer 1']);
    for (const { logs, transport } of nodes) {
      const refusal = logs.find(({ level }) => level === 'warn');
      expect([refusal?.message, refusal?.message]).toEqual([
        expect.stringContaining(OWN),
        expect.stringContaining(OTHER),
      ]);
      expect([transport.isUp(1), transport.isUp(2)]).toEqual([false, false]);
    }
  });
});

describe('a node without a cluster id', () => {
  it('is linked with a node that has one, whose id it is told', async () => {
    const nodes = await startTwo(['', OWN]);
    await Promise.all(nodes.map((node) => node.until(() => node.events.length > 0)));
    expect(nodes.map(({ events, clusterIds }) => [events, clusterIds])).toEqual([
      [['up 2'], [OWN]],
      [['up 1'], ['']],
    ]);
  });

  it('that gets one has its links made again, so that both ends know of it', async () => {
    const [one, two] = await startTwo(['', OWN]);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 1)));
    one.transport.setClusterId(OWN);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 3)));
    expect([one.events, two.events]).toEqual([
      ['up 2', 'lost 2', 'up 2'],
      ['up 1', 'lost 1', 'up 1'],
    ]);
    expect([one.clusterIds, two.clusterIds]).toEqual([
      [OWN, OWN],
      ['', OWN],
    ]);
  });

  it('that gets another one than its peer loses the link', async () => {
    const [one, two] = await startTwo(['', OWN]);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 1)));
    one.transport.setClusterId(OTHER);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 3)));
    // It goes on asking, so there may be more.
    expect([one.events.slice(0, 3), two.events.slice(0, 3)]).toEqual([
      ['up 2', 'lost 2', 'foreign peer 2'],
      ['up 1', 'lost 1', 'foreign peer 1'],
    ]);
  });

  it('is linked with another that has none either, until one of them gets one', async () => {
    const [one, two] = await startTwo(['', '']);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 1)));
    two.transport.setClusterId(OWN);
    await Promise.all([one, two].map((node) => node.until(() => node.events.length === 3)));
    expect(one.clusterIds).toEqual(['', OWN]);
  });
});
