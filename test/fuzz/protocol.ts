import { describe, expect, it } from 'vitest';
import { type Clock, systemClock } from '../../src/base/clock.ts';
import { serveStore } from '../support/client-port.ts';
import { FakeReplica } from '../support/fake-replica.ts';
import { NaiveModel } from '../support/naive-model.ts';
import { seededRandom } from '../support/random.ts';
import { connectText } from '../support/text-client.ts';
import { firstDifference, withMarkers } from './compare.ts';
import { type Dialect, Generator } from './generator.ts';

/** Streams by the grammar, split anywhere, against a model of the protocol that shares nothing with the server. */
const REQUESTS = 1000;
const NOW_MS = 1_800_000_000_000;
const ITEM_BYTES_MAX = 2000;

const COMMON = ['k', 's', 't', 'c', 'f', 'v', 'v', 'h', 'l', 'u', 'q', 'O123', 'P', 'L5'];
const TIMES = ['T0', 'T1000', 'T-1', 'N0', 'N500', 'R30', 'R1500', 'R5000', 'R0'];
const CAS = ['C0', 'C1', 'C5', 'C9', 'C20', 'C9007199254740993', 'C18446744073709551615'];
const NEW_CAS = ['E1', 'E5', 'E9007199254740992', 'E9007199254740993', 'E18446744073709551615'];

const DIALECT: Dialect = {
  hostile: true,
  casUniques: ['0', '1', '2', '5', '9', '20', '9007199254740993', '18446744073709551615'],
  metaFlags: {
    mg: [...COMMON, ...TIMES, ...CAS, 'E9', 'I', 'x'],
    ms: [
      ...COMMON,
      ...TIMES,
      ...CAS,
      ...NEW_CAS,
      'F7',
      'F4294967295',
      'F4294967296',
      'I',
      'I',
      'ME',
      'MA',
      'MP',
      'MR',
      'MS',
      'MX',
      'M',
      'MSS',
    ],
    md: [...COMMON, ...TIMES, ...CAS, ...NEW_CAS, 'I', 'I', 'I', 'x', 'F3'],
    ma: [
      ...COMMON,
      ...TIMES,
      ...CAS,
      ...NEW_CAS,
      'N0',
      'J13',
      'J18446744073709551615',
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
  numberKeys: ['n', 'm', 'a'],
  encodedKeys: ['YmluMQ==', 'AAEC', 'YQ=='],
  tooLargeBytes: ITEM_BYTES_MAX,
};

/** Time stands still, so that times to live are exact. */
const clock: Clock = { ...systemClock, wallMs: () => NOW_MS };

export function comparesWithModel(streams: number): void {
  describe('a stream of requests, split anywhere', () => {
    it.each(Array.from({ length: streams }, (_, i) => 1000 + i))(
      'gets the replies that the model gives (seed %i)',
      async (seed) => {
        const random = seededRandom(seed);
        const generator = new Generator(random, DIALECT);
        const replica = new FakeReplica({ clock, itemBytesMax: ITEM_BYTES_MAX });
        const { port } = await serveStore({ itemBytesMax: ITEM_BYTES_MAX }, replica, { clock });
        const requests = Array.from({ length: REQUESTS }, () => generator.request());
        const stream = `${withMarkers(requests)}${'\r\n'.repeat(ITEM_BYTES_MAX)}`;
        const expected = new NaiveModel(NOW_MS, ITEM_BYTES_MAX).converse(stream);
        const client = await connectText(port);
        for (let at = 0; at < stream.length; ) {
          const length = random() < 0.3 ? 1 + Math.floor(random() * 5) : 1 + Math.floor(random() * 6000);
          client.send(stream.slice(at, at + length));
          at += length;
          if (random() < 0.2) await new Promise((resolve) => setImmediate(resolve));
        }
        client.end();
        const received = await client.rest();
        client.destroy();
        expect(firstDifference(received, expected, requests)).toBeNull();
      },
    );
  });
}
