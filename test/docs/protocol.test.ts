import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import type { MemcachedClient } from '../support/memcached-client.ts';

/**
 * Plays the conversations of docs/protocol.md to real nodes, so that the document stays true. A fenced block that
 * begins with ```memcached is one connection: `> ` goes to the node (with \r\n, `(800 bytes)` as so many), `< ` must
 * come back, `# 2 seconds later` waits, any other `# ` is a remark. `…` stands for anything within a line, and alone for
 * any lines. What follows `memcached` names the cluster that the block is played to.
 */
const FILE = resolve(import.meta.dirname, '../../docs/protocol.md');
const WAITS_MS_MAX = 6_000;

interface Conversation {
  readonly line: number;
  readonly section: string;
  readonly cluster: string;
  readonly steps: readonly string[];
}

const CLUSTERS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  'three nodes': {},
  'full store': { limits: { itemBytesMax: 1024, storeBytesMax: 1_048_576 } },
  'no connection left': { limits: { connectionsMax: 1 } },
  'no quorum': { requestTimeoutMs: 1_000 },
};
const OF_ONE_NODE = ['full store', 'no connection left'];

const conversations = readConversations(readFileSync(FILE, 'utf8'));
const clusters = new Map<string, Cluster>();
/** Conversations that wait, by line: each has a node of its own and begins before the others, so that they wait at once. */
const waiting = new Map<number, Promise<string>>();
let playing: Cluster | undefined;
showLogOfFailure(() => playing);

beforeAll(async () => {
  const start = async ([name, settings]: [string, Readonly<Record<string, unknown>>]) => {
    const nodes = OF_ONE_NODE.includes(name) ? 1 : 3;
    clusters.set(name, await startCluster({ settings, nodes, inProcess: true }));
  };
  const startWaiting = async ({ line, steps }: Conversation) => {
    const cluster = await startCluster({ nodes: 1, inProcess: true });
    clusters.set(`line ${line}`, cluster);
    const heard = converse(await cluster.connect(1), steps);
    // Its test awaits it, and fails where it has failed.
    heard.catch(() => {});
    waiting.set(line, heard);
  };
  const slow = conversations.filter(({ steps }) => steps.some((step) => waitMsOf(step) > 0));
  await Promise.all([...slow.map(startWaiting), ...Object.entries(CLUSTERS).map(start)]);
  await Promise.all([fillStore(), takeLastConnection(), stopMajority()]);
});
afterAll(() => Promise.all([...clusters.values()].map((cluster) => cluster.stop())));

describe('docs/protocol.md', () => {
  it('has conversations to play', () => expect(conversations.length).toBeGreaterThan(15));

  for (const { line, section, cluster, steps } of conversations) {
    it(`tells the truth in line ${line}, "${section}"`, async () => {
      playing = clusters.get(waiting.has(line) ? `line ${line}` : cluster);
      if (playing === undefined) throw new Error(`line ${line}: no cluster is called "${cluster}"`);
      const [id = 0] = cluster === 'three nodes' ? await playing.followers() : playing.running();
      const heard = waiting.get(line) ?? converse(await playing.connect(id), steps);
      const sent = steps.filter((step) => step.startsWith('> '));
      expect(await heard, `after ${JSON.stringify(sent)}`).toMatch(
        expectationOf(steps.filter((step) => step.startsWith('< '))),
      );
    });
  }
});

async function fillStore(): Promise<void> {
  const client = await clusters.get('full store')?.connect(1);
  const value = 'x'.repeat(800);
  const replies = await Promise.all(Array.from({ length: 1500 }, (_, i) => client?.set(`fill${i}`, value)));
  expect(replies.at(-1)).toBe('SERVER_ERROR out of memory storing object');
}

async function takeLastConnection(): Promise<void> {
  const client = await clusters.get('no connection left')?.connect(1);
  expect(await client?.request('mn\r\n')).toBe('MN');
}

async function stopMajority(): Promise<void> {
  const cluster = clusters.get('no quorum');
  const [kept = 0] = (await cluster?.followers()) ?? [];
  const others = cluster?.nodes.filter(({ id }) => id !== kept) ?? [];
  await Promise.all(others.map(({ id }) => cluster?.kill(id, 'SIGTERM')));
}

function readConversations(text: string): Conversation[] {
  const found: Conversation[] = [];
  let section = '';
  let open: { line: number; cluster: string; steps: string[] } | null = null;
  for (const [index, line] of text.split('\n').entries()) {
    const fence = /^```memcached ?(.*)$/.exec(line);
    if (open !== null && line === '```') {
      found.push({ section, ...open });
      open = null;
    } else if (open !== null) {
      if (!/^[<>#] |^[<>]$/.test(line))
        throw new Error(`line ${index + 1}: neither sent, received nor remark: ${line}`);
      open.steps.push(line.length === 1 ? `${line} ` : line);
    } else if (fence !== null) {
      open = { line: index + 1, cluster: fence[1] === '' ? 'three nodes' : (fence[1] ?? ''), steps: [] };
    } else if (line.startsWith('#')) {
      section = line.replace(/^#+ /, '');
    }
  }
  return found;
}

/**
 * Sends everything, half-closes, and returns all that came back. Where the document waits, the wait begins when all
 * replies so far have come: however slow the machine is, what was asked for before has been done by then.
 */
async function converse(client: MemcachedClient, steps: readonly string[]): Promise<string> {
  const received: string[] = [];
  for (const [i, step] of steps.entries()) {
    if (step.startsWith('> ')) client.send(`${bytesOf(step.slice(2))}\r\n`);
    const waitMs = waitMsOf(step);
    if (waitMs === 0) continue;
    const expected = steps.slice(0, i).filter((earlier) => earlier.startsWith('< ')).length;
    while (received.length < expected) received.push(`${await client.reply()}\r\n`);
    await new Promise((resolve) => setTimeout(resolve, waitMs));
  }
  client.end();
  return received.join('') + (await client.rest());
}

/** 0 where the step does not wait. */
function waitMsOf(step: string): number {
  const seconds = /^# (\d+) seconds? later/.exec(step)?.[1] ?? 0;
  return Math.min(Number(seconds) * 1000, WAITS_MS_MAX);
}

/** `(800 bytes)` is short for as many. */
function bytesOf(text: string): string {
  const count = /^\((\d+) bytes\)$/.exec(text)?.[1];
  return count === undefined ? text : 'x'.repeat(Number(count));
}

function expectationOf(replies: readonly string[]): RegExp {
  const lines = replies.map((reply) => {
    const text = reply.slice(2);
    if (text === '…') return '(?:[^\\n]*\\n)*?';
    return `${text.split('…').map(escapeText).join('[^\\n]*?')}\\r?\\n`;
  });
  return new RegExp(`^${lines.join('')}$`);
}

function escapeText(text: string): string {
  return text.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&');
}
