import { readdirSync, readFileSync, statSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { join } from 'node:path';
import type { Cluster } from './cluster.ts';

/** Filling a cluster fast, and seeing what its nodes hold and what that takes. */

const HOST = '127.0.0.1';
const STORED = 'STORED\r\n';
/** Sets under way at a time: enough for full batches, little enough to see a failure soon. */
const FILL_CLIENTS = 4;
const FILL_WINDOW = 250;
const KEYS_PER_GET = 500;
/** The client joins what it receives again and again, so replies are kept short. */
const REPLY_BYTES_MAX = 512 * 1024;
/** What `stat` counts a file's blocks in. */
const BLOCK_BYTES = 512;

export interface Store {
  readonly key: string;
  readonly value: string;
}

/** Stores `count` items through the ports in turn; rejects at the first reply that is not STORED. */
export async function fill(ports: readonly number[], count: number, itemOf: (i: number) => Store): Promise<void> {
  let next = 0;
  const requestsOf = () => {
    const to = Math.min(count, next + FILL_WINDOW);
    let text = '';
    for (; next < to; next++) {
      const { key, value } = itemOf(next);
      text += `set ${key} 0 0 ${value.length}\r\n${value}\r\n`;
    }
    return text;
  };
  await Promise.all(
    Array.from({ length: FILL_CLIENTS }, async (_, i) => {
      const socket = await openSocket(ports[i % ports.length] ?? 0);
      const read = replyReader(socket);
      try {
        while (next < count) {
          const before = next;
          socket.write(requestsOf(), 'latin1');
          const expected = STORED.repeat(next - before);
          const got = await read(expected.length);
          if (got !== expected) throw new Error(`sets were answered ${JSON.stringify(odd(got))}`);
        }
      } finally {
        socket.destroy();
      }
    }),
  );
}

function odd(replies: string): string {
  return replies.replaceAll(STORED, '').slice(0, 200);
}

/** Gives the next so many bytes; less where they hold something else than STORED, or the connection ends. */
function replyReader(socket: Socket): (bytes: number) => Promise<string> {
  let received = '';
  let look = () => {};
  socket.setEncoding('latin1').on('data', (text: string) => {
    received += text;
    look();
  });
  socket.on('error', () => {});
  socket.on('close', () => look());
  return (bytes) =>
    new Promise((resolve) => {
      look = () => {
        if (received.length < bytes && !received.includes('ERROR') && !socket.closed) return;
        resolve(received.slice(0, bytes));
        received = received.slice(bytes);
      };
      look();
    });
}

export interface Latencies {
  /** When each reply came, and how long it took; in the order of the replies. */
  readonly doneMs: Float64Array;
  readonly tookMs: Float64Array;
  /** Replies other than STORED, and connections that broke. */
  readonly failures: string[];
}

export interface ClosedLoop {
  readonly clients: number;
  readonly total: number;
  readonly itemOf: (i: number) => Store;
  /** Told that so many are done. */
  readonly onDone?: (done: number) => void;
}

/** Clients that each send one set after the other; the time of every one is kept. */
export async function measureSets(ports: readonly number[], options: ClosedLoop): Promise<Latencies> {
  const { clients, total, itemOf, onDone } = options;
  const doneMs = new Float64Array(total);
  const tookMs = new Float64Array(total);
  const failures: string[] = [];
  let sent = 0;
  let done = 0;
  const runClient = async (i: number) => {
    const socket = await openSocket(ports[i % ports.length] ?? 0);
    await new Promise<void>((resolve) => {
      let sentMs = 0;
      const sendNext = () => {
        if (sent >= total) {
          socket.destroy();
          resolve();
          return;
        }
        const { key, value } = itemOf(sent++);
        sentMs = performance.now();
        socket.write(`set ${key} 0 0 ${value.length}\r\n${value}\r\n`, 'latin1');
      };
      socket.setEncoding('latin1').on('data', (text: string) => {
        if (text !== STORED) failures.push(text.slice(0, 100));
        const nowMs = performance.now();
        doneMs[done] = nowMs;
        tookMs[done] = nowMs - sentMs;
        done++;
        onDone?.(done);
        sendNext();
      });
      socket.on('error', (error) => failures.push(error.message));
      socket.on('close', () => {
        if (sent < total) failures.push('a connection was closed');
        resolve();
      });
      sendNext();
    });
  };
  await Promise.all(Array.from({ length: clients }, (_, i) => runClient(i)));
  return { doneMs: doneMs.subarray(0, done), tookMs: tookMs.subarray(0, done), failures };
}

export function percentile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
}

/** Where the values differ from these, as the node answers linearizable reads. */
export async function differencesAt(cluster: Cluster, id: number, wanted: ReadonlyMap<string, string>) {
  const client = await cluster.connect(id);
  const keys = [...wanted.keys()];
  const different: string[] = [];
  const valueBytesMax = [...wanted.values()].reduce((most, { length }) => Math.max(most, length), 1);
  const keysPerGet = Math.max(1, Math.min(KEYS_PER_GET, Math.floor(REPLY_BYTES_MAX / valueBytesMax)));
  for (let at = 0; at < keys.length; at += keysPerGet) {
    const asked = keys.slice(at, at + keysPerGet);
    const found = new Map((await client.gets(...asked)).map(({ key, value }) => [key, value]));
    different.push(...asked.filter((key) => found.get(key) !== wanted.get(key)));
  }
  client.destroy();
  return different;
}

/** All that the node itself holds, without asking the others: key, expiry time and cas unique of each item. */
export async function itemsHeldBy(cluster: Cluster, id: number): Promise<string[]> {
  const client = await cluster.connect(id);
  const listing = await client.request('lru_crawler metadump all\r\n', 'block');
  client.destroy();
  return [...listing.matchAll(/key=(\S+) exp=(\S+).*? cas=(\d+)/g)]
    .map(([, key, expiry, unique]) => `${key} ${expiry} ${unique}`)
    .sort();
}

/** What all files below the folder take on the disk. */
export function diskBytes(folder: string): number {
  let bytes = 0;
  for (const path of filesBelow(folder)) {
    try {
      bytes += statSync(path).blocks * BLOCK_BYTES;
    } catch {
      // Removed meanwhile: the nodes are at work.
    }
  }
  return bytes;
}

export function filesBelow(folder: string): string[] {
  try {
    return readdirSync(folder, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile())
      .map((entry) => join(entry.parentPath, entry.name))
      .sort();
  } catch {
    return [];
  }
}

export function residentBytes(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)?.[1]) * 1024;
}

/** The nodes' log lines with this message, parsed. */
export function logged(cluster: Cluster, message: string, from = 0): Record<string, unknown>[] {
  return cluster
    .lines()
    .slice(from)
    .filter((line) => line.includes(`"msg":"${message}"`))
    .map((line) => JSON.parse(line) as Record<string, unknown>);
}

function openSocket(port: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: HOST, noDelay: true });
    socket.once('error', reject);
    socket.once('connect', () => resolve(socket.off('error', reject)));
  });
}
