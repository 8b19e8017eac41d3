import { readFileSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';

/**
 * Ten million pipelined requests through one node, without a pause: every reply comes, in its place, and memory stays
 * flat.
 *
 *   connection ─▶ round: sets and gets, loud and quiet, each with an opaque of its own, then `mn`   (some under way)
 *   connection ◀── the replies of a round, known beforehand to the byte
 */
const REQUESTS = 10_000_000;
const CONNECTIONS = 8;
const ROUNDS_UNDER_WAY = 3;
const KEYS_PER_CONNECTION = 500;
/** Sets, then as many gets of the same keys, then the barrier. */
const SETS_PER_ROUND = 250;
const REQUESTS_PER_ROUND = 2 * SETS_PER_ROUND + 1;
const TENTHS = 10;
/** The first tenths are for warming up: compiled code, buffers and a heap as large as this load makes it. */
const WARM_TENTHS = 3;
const MIB = 1024 * 1024;
const GROWTH_MIB_MAX = 64;

let cluster: Cluster;
showLogOfFailure(() => cluster);
beforeAll(async () => {
  cluster = await startCluster();
});
afterAll(() => cluster?.stop());

interface Round {
  readonly requests: string;
  /** What the node has to answer. */
  readonly replies: string;
}

/**
 * Quiet ones leave no reply: sets that succeed, gets that miss. Values are those of the round's own sets. Opaques count
 * all requests of the connection, so that no two replies are the same.
 */
function makeRound(connection: number, round: number): Round {
  let requests = '';
  let replies = '';
  let opaque = round * REQUESTS_PER_ROUND;
  const first = round * SETS_PER_ROUND;
  for (let i = 0; i < SETS_PER_ROUND; i++) {
    const quiet = i % 3 === 0;
    const key = `soak.${connection}.${(first + i) % KEYS_PER_CONNECTION}`;
    opaque++;
    requests += `ms ${key} 8 O${opaque}${quiet ? ' q' : ''}\r\n${valueIn(round, i)}\r\n`;
    if (!quiet) replies += `HD O${opaque}\r\n`;
  }
  for (let i = 0; i < SETS_PER_ROUND; i++) {
    const misses = i % 5 === 0;
    const quiet = i % 2 === 0;
    const key = misses ? 'soak.missing' : `soak.${connection}.${(first + i) % KEYS_PER_CONNECTION}`;
    opaque++;
    requests += `mg ${key} v O${opaque}${quiet ? ' q' : ''}\r\n`;
    if (!misses) replies += `VA 8 O${opaque}\r\n${valueIn(round, i)}\r\n`;
    else if (!quiet) replies += `EN O${opaque}\r\n`;
  }
  return { requests: `${requests}mn\r\n`, replies: `${replies}MN\r\n` };
}

function valueIn(round: number, i: number): string {
  return String((round * 1000 + i) % 100_000_000).padStart(8, '0');
}

interface Soak {
  /** Requests sent and answered. */
  answered: number;
  nextRound: number;
  readonly rounds: number;
  onProgress(): void;
}

/** Keeps rounds under way until none is left. Rejects at the first byte that is not the expected one. */
function soakThrough(socket: Socket, connection: number, soak: Soak): Promise<void> {
  const expected: Buffer[] = [];
  let matched = 0;
  let ownRound = 0;
  return new Promise((resolve, reject) => {
    const fail = (why: string) => {
      socket.destroy();
      reject(new Error(`connection ${connection}: ${why}`));
    };
    const sendRounds = () => {
      while (expected.length < ROUNDS_UNDER_WAY && soak.nextRound < soak.rounds) {
        soak.nextRound++;
        const { requests, replies } = makeRound(connection, ownRound++);
        expected.push(Buffer.from(replies, 'latin1'));
        socket.write(requests, 'latin1');
      }
      if (expected.length === 0) socket.end(resolve);
    };
    const receive = (chunk: Buffer) => {
      let at = 0;
      while (at < chunk.length) {
        const [wanted] = expected;
        if (wanted === undefined) return fail(`unasked-for bytes: ${show(chunk, at)}`);
        const count = Math.min(chunk.length - at, wanted.length - matched);
        if (chunk.compare(wanted, matched, matched + count, at, at + count) !== 0) {
          const same = sameBytes(wanted, matched, chunk, at);
          return fail(`expected ${show(wanted, matched + same)}, got ${show(chunk, at + same)}`);
        }
        at += count;
        matched += count;
        if (matched < wanted.length) return;
        matched = 0;
        expected.shift();
        soak.answered += REQUESTS_PER_ROUND;
        soak.onProgress();
      }
      sendRounds();
    };
    socket.on('data', receive);
    socket.on('error', (error) => fail(error.message));
    socket.on('close', () => fail(`closed with ${expected.length} rounds unanswered`));
    sendRounds();
  });
}

function sameBytes(wanted: Buffer, wantedAt: number, got: Buffer, gotAt: number): number {
  let count = 0;
  while (wanted[wantedAt + count] === got[gotAt + count]) count++;
  return count;
}

function show(bytes: Buffer, at: number): string {
  return JSON.stringify(bytes.toString('latin1', at, at + 100));
}

function openSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket({ host: '127.0.0.1', port, noDelay: true });
    socket.once('connect', () => resolve(socket.off('error', reject)));
    socket.once('error', reject);
  });
}

function residentMib(id: number): number {
  const status = readFileSync(`/proc/${cluster.pid(id)}/status`, 'latin1');
  return Math.round((Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024) / MIB);
}

describe('a node under one long pipeline', () => {
  it(`answers each of ${REQUESTS} requests, and its memory stays flat`, async () => {
    const [node = 0] = await cluster.followers();
    const ids = cluster.nodes.map(({ id }) => id);
    const residents: number[][] = [];
    const rounds = Math.ceil(REQUESTS / REQUESTS_PER_ROUND);
    const startMs = performance.now();
    const soak: Soak = {
      answered: 0,
      nextRound: 0,
      rounds,
      onProgress() {
        if (soak.answered < ((residents.length + 1) * REQUESTS) / TENTHS) return;
        residents.push(ids.map(residentMib));
        const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
        console.log(`${soak.answered} in ${seconds} s; MiB of nodes ${ids}: ${residents.at(-1)}`);
      },
    };
    const { clientPort } = cluster.node(node);
    const sockets = await Promise.all(Array.from({ length: CONNECTIONS }, () => openSocket(clientPort)));
    await Promise.all(sockets.map((socket, connection) => soakThrough(socket, connection, soak)));
    const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
    console.log(`${soak.answered} requests through node ${node} in ${seconds} s; MiB: ${residents.join(' | ')}`);
    expect(soak.answered).toBe(rounds * REQUESTS_PER_ROUND);
    const warm = residents.slice(WARM_TENTHS - 1, -1);
    for (const [i, last] of (residents.at(-1) ?? []).entries()) {
      const before = Math.min(...warm.map((at) => at[i] ?? 0));
      expect(last - before, `growth of node ${ids[i]} in MiB`).toBeLessThan(GROWTH_MIB_MAX);
    }
  });
});
