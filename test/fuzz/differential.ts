import { afterAll, describe, expect, it } from 'vitest';
import { serveStore } from '../support/client-port.ts';
import { seededRandom } from '../support/random.ts';
import { connectText } from '../support/text-client.ts';
import { firstDifference, markerOf, withMarkers } from './compare.ts';
import { AVOIDED, normalized, RULES, tally } from './differences.ts';
import { type Dialect, Generator } from './generator.ts';
import { installedMemcached, type RunningMemcached, startMemcached } from './memcached.ts';

const REQUESTS = 1000;

const COMMON = ['k', 't', 'c', 'f', 'v', 'v', 'h', 'l', 'u', 'q', 'O123', 'P', 'L5'];
const OLDER_AND_NEWER = ['C0', 'C1', 'C18446744073709551615'];
const DIALECT: Dialect = {
  hostile: false,
  casUniques: ['0', '18446744073709551615'],
  metaFlags: {
    mg: [...COMMON, 's', 'T0', 'T1000', 'T-1', 'N500', 'N5000', 'R30', 'R3000', 'R0', 'C0', 'I'],
    ms: [
      ...COMMON,
      'T0',
      'T1000',
      'T-1',
      ...OLDER_AND_NEWER,
      'F7',
      'F4294967295',
      'I',
      'I',
      'ME',
      'MA',
      'MP',
      'MR',
      'MS',
      'MX',
    ],
    md: [...COMMON, 's', 'T0', 'T1000', 'T-1', ...OLDER_AND_NEWER, 'I', 'I', 'I', 'F3'],
    ma: [
      ...COMMON,
      's',
      ...OLDER_AND_NEWER,
      'N0',
      'N500',
      'J13',
      'J9007199254740993',
      'D5',
      'D0',
      'MI',
      'MD',
      'M+',
      'M-',
      'MX',
    ],
  },
  keys: ['a', 'b', 'c'],
  numberKeys: ['n', 'm'],
  encodedKeys: ['YmluMQ=='],
  tooLargeBytes: 0,
};

const PREFACE = `flush_all\r\n${'set a 0 0 1\r\na\r\n'.repeat(2)}`;

/** All at once. */
async function pipelined(port: number, requests: readonly string[]): Promise<string> {
  const client = await connectText(port);
  client.send(PREFACE + withMarkers(requests));
  const replies = await client.reply(`EN O#${requests.length - 1}\r\n`);
  client.destroy();
  return replies;
}

/** One by one: what memcached does with an item depends on whether a reply of it is on its way. */
async function oneByOne(port: number, requests: readonly string[]): Promise<string> {
  const client = await connectText(port);
  client.send(PREFACE);
  let replies = await client.reply('STORED\r\nSTORED\r\n');
  for (const [i, request] of requests.entries()) {
    client.send(`${request}${markerOf(i)}`);
    replies += await client.reply(`EN O#${i}\r\n`);
  }
  client.destroy();
  return replies;
}

/** The same random streams of requests go to this server and to an installed memcached, if there is one. */
export function comparesWithMemcached(streams: number): void {
  const version = installedMemcached();
  let memcached: RunningMemcached | null = null;
  const totals: Record<string, number> = {};
  afterAll(async () => {
    await memcached?.stop();
    if (version === null) return;
    console.log(`memcached ${version}, ${streams * REQUESTS} requests; differences by rule:`);
    for (const { name, reason } of RULES) console.log(`  ${name} (${totals[name] ?? 0}): ${reason}`);
    for (const what of AVOIDED) console.log(`  not asked: ${what}`);
  });

  describe.skipIf(version === null)('the same stream, to this server and to memcached', () => {
    const seeds = Array.from({ length: streams }, (_, i) => 5000 + i);
    it.each(seeds)('has the same replies but for the differences that are meant (seed %i)', async (seed) => {
      memcached ??= await startMemcached();
      const generator = new Generator(seededRandom(seed), DIALECT);
      const { port } = await serveStore();
      const requests = Array.from({ length: REQUESTS }, () => generator.request());
      const theirs = await oneByOne(memcached.port, requests);
      const ours = await pipelined(port, requests);
      for (const [name, count] of Object.entries(tally(theirs))) totals[name] = (totals[name] ?? 0) + count;
      expect(firstDifference(normalized(ours), normalized(theirs), requests)).toBeNull();
    });
  });
}
