import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { type Load, longestPauseMs, startLoad } from '../support/load.ts';

/**
 * How long clients of the surviving nodes wait when their leader goes. A client's pause is the time between two of its
 * acknowledged writes. On an idle machine the median is below 100 ms, after kill -9 and on SIGTERM.
 *
 * What is asserted is the ratio to the election timeout, which is set so high that even a busy machine stays below it:
 * followers replace a leader whose links close without waiting for the timeout.
 */
const KILLS = 20;
const STOPS = 5;
const ELECTION_TIMEOUT_MS = 10_000;
const MEDIAN_MS_MAX = ELECTION_TIMEOUT_MS / 4;
const CLIENTS = 24;

let cluster: Cluster;
let load: Load;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster({ settings: { electionTimeoutMs: ELECTION_TIMEOUT_MS } });
  load = startLoad(cluster, {
    clients: CLIENTS,
    async request(client, number, round) {
      const reply = await client.set(`failover${number}`, `${round}`);
      if (reply !== 'STORED') throw new Error(reply);
    },
  });
});
afterAll(async () => {
  await load?.stop();
  await cluster?.stop();
});

/** Ends the leader, brings it back, and gives the longest pause that clients of the other nodes saw. */
async function measure(signal: NodeJS.Signals): Promise<{ pauseMs: number; exit: number | string }> {
  const leader = await cluster.leader();
  await load.progress(300);
  const startMs = performance.now();
  const exit = await cluster.kill(leader, signal);
  await cluster.leader(leader);
  await load.progress(300);
  const endMs = performance.now();
  await cluster.start(leader);
  await cluster.serving(leader);
  const pauseMs = longestPauseMs(load.acknowledged, startMs - 50, endMs, ({ node }) => node !== leader);
  return { pauseMs, exit };
}

async function measureRounds(signal: NodeJS.Signals, count: number) {
  const rounds: { pauseMs: number; exit: number | string }[] = [];
  while (rounds.length < count) rounds.push(await measure(signal));
  const pausesMs = rounds.map(({ pauseMs }) => Math.round(pauseMs)).sort((a, b) => a - b);
  console.log(`${signal} of the leader: longest pause of a client's acknowledged writes, ms: ${pausesMs.join(' ')}`);
  return { medianMs: pausesMs[count >> 1], exits: rounds.map(({ exit }) => exit) };
}

describe('failover', () => {
  it('after kill -9 of the leader is a short pause and no error', async () => {
    const { medianMs } = await measureRounds('SIGKILL', KILLS);
    expect(load.errors).toEqual([]);
    expect(medianMs).toBeLessThan(MEDIAN_MS_MAX);
  });

  it('on SIGTERM of the leader is hardly a pause, and the node exits with 0', async () => {
    const { medianMs, exits } = await measureRounds('SIGTERM', STOPS);
    expect(load.errors).toEqual([]);
    expect(exits).toEqual(exits.map(() => 0));
    expect(medianMs).toBeLessThan(MEDIAN_MS_MAX);
  });
});
