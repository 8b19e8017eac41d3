import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { type Load, longestPauseMs, startLoad } from '../support/load.ts';
import { type StallWatch, watchStalls } from '../support/stalls.ts';

/**
 * How long clients of the surviving nodes wait when their leader goes. A client's pause is the time between two of its
 * acknowledged writes. `RAFTKV_LONG=1` measures twenty kills instead of five.
 */
const KILLS = process.env['RAFTKV_LONG'] === undefined ? 5 : 20;
const KILLED_P50_MS_MAX = 100;
const KILLED_WORST_MS_MAX = 500;
const STOPPED_P50_MS_MAX = 100;
const STOPPED_WORST_MS_MAX = 250;
/** A round in which the machine stood still longer than this is measured again. */
const STALL_MS_MAX = 50;
const ROUNDS_REPEATED_MAX = 10;
const CLIENTS = 24;

let cluster: Cluster;
let stalls: StallWatch;
let load: Load;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
  stalls = watchStalls();
  load = startLoad(cluster, {
    clients: CLIENTS,
    async request(client, number, round) {
      const reply = await client.set(`failover${number}`, `${round}`);
      if (reply !== 'STORED') throw new Error(reply);
    },
  });
});
afterAll(async () => {
  stalls?.stop();
  await load?.stop();
  await cluster?.stop();
});

/** Ends the leader, brings it back, and gives the longest pause that clients of the other nodes saw. */
async function measure(signal: NodeJS.Signals): Promise<{ pauseMs: number; stalledMs: number; exit: number | string }> {
  const leader = await cluster.leader();
  await load.progress(300);
  const startMs = performance.now();
  const exit = await cluster.kill(leader, signal);
  await cluster.leader(leader);
  await load.progress(300);
  const endMs = performance.now();
  const stalledMs = stalls.stalledMs(startMs);
  await cluster.start(leader);
  await cluster.serving(leader);
  const pauseMs = longestPauseMs(load.acknowledged, startMs - 50, endMs, ({ node }) => node !== leader);
  return { pauseMs, stalledMs, exit };
}

async function measureRounds(signal: NodeJS.Signals, count: number) {
  const rounds: { pauseMs: number; exit: number | string }[] = [];
  for (let repeated = 0; rounds.length < count; ) {
    const { pauseMs, stalledMs, exit } = await measure(signal);
    if (stalledMs < STALL_MS_MAX || repeated++ >= ROUNDS_REPEATED_MAX) rounds.push({ pauseMs, exit });
  }
  const pausesMs = rounds.map(({ pauseMs }) => Math.round(pauseMs)).sort((a, b) => a - b);
  console.log(`${signal} of the leader: longest pause of a client's acknowledged writes, ms: ${pausesMs.join(' ')}`);
  return { pausesMs, exits: rounds.map(({ exit }) => exit) };
}

describe('failover', () => {
  it('after kill -9 of the leader is a short pause and no error', { timeout: KILLS * 8_000 }, async () => {
    const { pausesMs } = await measureRounds('SIGKILL', KILLS);
    expect(load.errors).toEqual([]);
    expect(pausesMs[Math.floor(KILLS / 2)]).toBeLessThanOrEqual(KILLED_P50_MS_MAX);
    expect(pausesMs.at(-1)).toBeLessThanOrEqual(KILLED_WORST_MS_MAX);
  });

  it('on SIGTERM of the leader is hardly a pause, and the node exits with 0', { timeout: 60_000 }, async () => {
    const { pausesMs, exits } = await measureRounds('SIGTERM', 3);
    expect(load.errors).toEqual([]);
    expect(exits).toEqual([0, 0, 0]);
    expect(pausesMs[1]).toBeLessThanOrEqual(STOPPED_P50_MS_MAX);
    expect(pausesMs.at(-1)).toBeLessThanOrEqual(STOPPED_WORST_MS_MAX);
  });
});
