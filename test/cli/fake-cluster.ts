import { createServer, type Socket } from 'node:net';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import type { Clock } from '../../src/base/clock.ts';
import type { Config } from '../../src/config/schema.ts';

/** What a test needs to lead fake nodes: their control port, a queue to await them from, a clock to turn by hand. */

export const FAKE_NODE_SCRIPT = resolve(import.meta.dirname, 'fake-node.mjs');

/** Things that happen, to be awaited in the order they happen. */
export interface Queue<T> {
  push(item: T): void;
  next(): Promise<T>;
}

export function createQueue<T>(): Queue<T> {
  const items: T[] = [];
  const takers: ((item: T) => void)[] = [];
  return {
    push(item) {
      const taker = takers.shift();
      if (taker) taker(item);
      else items.push(item);
    },
    next() {
      const item = items.shift();
      if (item !== undefined) return Promise.resolve(item);
      return new Promise((resolveItem) => takers.push(resolveItem));
    },
  };
}

export interface FakeNode {
  readonly id: number;
  readonly pid: number;
  do(command: 'send' | 'print' | 'writeToStderr' | 'exit' | 'deafen', argument?: unknown): void;
  /** What the node says after its start. */
  readonly said: Queue<string>;
  /** Resolves when the process has ended. */
  readonly gone: Promise<void>;
}

export interface FakeCluster {
  readonly port: number;
  /** Nodes in the order of their starts. */
  readonly started: Queue<FakeNode>;
  close(): Promise<void>;
}

export async function createFakeCluster(): Promise<FakeCluster> {
  const started = createQueue<FakeNode>();
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    const said = createQueue<string>();
    // A killed process may reset its connection.
    socket.on('error', () => {});
    const gone = new Promise<void>((resolveGone) => {
      socket.once('close', () => {
        sockets.delete(socket);
        resolveGone();
      });
    });
    createInterface({ input: socket }).on('line', (line) => {
      const { event, id, pid } = JSON.parse(line);
      if (event !== 'started') return said.push(event);
      const act: FakeNode['do'] = (command, argument) => socket.write(`${JSON.stringify({ command, argument })}\n`);
      started.push({ id, pid, do: act, said, gone });
    });
  });
  await new Promise<void>((listening) => server.listen(0, '127.0.0.1', listening));
  const address = server.address();
  return {
    port: typeof address === 'object' && address ? address.port : 0,
    started,
    close: () =>
      new Promise((closed) => {
        server.close(() => closed());
        for (const socket of sockets) socket.destroy();
      }),
  };
}

export interface ManualClock extends Clock {
  nowMs: number;
  /** Timers that were not cancelled, in the order they were set. */
  readonly timers: { readonly delayMs: number; fire(): void }[];
  readonly timerSet: Queue<{ readonly delayMs: number; fire(): void }>;
}

export function createManualClock(): ManualClock {
  const clock: ManualClock = {
    nowMs: 0,
    timers: [],
    timerSet: createQueue(),
    wallMs: () => clock.nowMs,
    monotonicMs: () => clock.nowMs,
    after(delayMs, callback) {
      const remove = () => {
        const at = clock.timers.indexOf(timer);
        if (at >= 0) clock.timers.splice(at, 1);
      };
      const timer = {
        delayMs,
        fire() {
          remove();
          clock.nowMs += delayMs;
          callback();
        },
      };
      clock.timers.push(timer);
      clock.timerSet.push(timer);
      return remove;
    },
    endOfTurn: (callback) => setImmediate(callback),
  };
  return clock;
}

export function fakeConfig(nodeCount: number): Config {
  const MIB = 1024 * 1024;
  return {
    cluster: 'fake',
    dataDir: '/nowhere',
    nodes: Array.from({ length: nodeCount }, (_, i) => ({
      id: i + 1,
      host: '127.0.0.1',
      clientPort: 11_001 + i,
      peerPort: 12_001 + i,
      adminPort: 13_001 + i,
    })),
    heartbeatIntervalMs: 50,
    electionTimeoutMs: 300,
    requestTimeoutMs: 10_000,
    walSegmentBytes: 64 * MIB,
    snapshotLogBytes: 64 * MIB,
    logLevel: 'info',
    limits: {
      itemBytesMax: MIB,
      storeBytesMax: 64 * MIB,
      connectionsMax: 100,
      pendingWriteBytesMax: 64 * MIB,
      connectionIdleMsMax: 0,
      unsentBytesMax: MIB,
      multiGetLineBytesMax: MIB,
      watchersMax: 20,
      watchedBytesMax: MIB,
    },
  };
}
