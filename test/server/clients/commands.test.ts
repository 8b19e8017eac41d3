import { describe, expect, it } from 'vitest';
import { serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse } from '../../support/text-client.ts';

/** Each row: what a client sends on a fresh connection to a fresh store, and every byte that it gets. */
type Row = readonly [sent: string, replies: string];

const BAD_LINE = 'CLIENT_ERROR bad command line format\r\n';
const BAD_DELETE = 'CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n';
const BAD_DELTA = 'CLIENT_ERROR invalid numeric delta argument\r\n';
const BAD_EXPTIME = 'CLIENT_ERROR invalid exptime argument\r\n';
const BAD_CHUNK = 'CLIENT_ERROR bad data chunk\r\n';
const NON_NUMERIC = 'CLIENT_ERROR cannot increment or decrement non-numeric value\r\n';
const TOO_LARGE = 'SERVER_ERROR object too large for cache\r\n';
const OUT_OF_MEMORY = 'SERVER_ERROR out of memory storing object\r\n';

const key = (length: number) => 'k'.repeat(length);
/** Sets `a` to a value, as the beginning of a conversation. */
const given = (value: string) => `set a 0 0 ${value.length} noreply\r\n${value}\r\n`;
/** Ends a conversation: shows that the connection is alive and in step. */
const MN = 'mn\r\n';

const TABLES: Record<string, readonly Row[]> = {
  'storage commands': [
    ['set a 5 0 3\r\nabc\r\nget a\r\n', 'STORED\r\nVALUE a 5 3\r\nabc\r\nEND\r\n'],
    ['set a 0 0 0\r\n\r\nget a\r\n', 'STORED\r\nVALUE a 0 0\r\n\r\nEND\r\n'],
    ['set a 4294967295 0 1\r\nx\r\nget a\r\n', 'STORED\r\nVALUE a 4294967295 1\r\nx\r\nEND\r\n'],
    ['add a 0 0 1\r\nx\r\nadd a 0 0 1\r\ny\r\nget a\r\n', 'STORED\r\nNOT_STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    ['replace a 0 0 1\r\nx\r\nget a\r\n', 'NOT_STORED\r\nEND\r\n'],
    [`${given('x')}replace a 7 0 2\r\nyz\r\nget a\r\n`, 'STORED\r\nVALUE a 7 2\r\nyz\r\nEND\r\n'],
    ['append a 0 0 1\r\nx\r\nprepend a 0 0 1\r\nx\r\n', 'NOT_STORED\r\nNOT_STORED\r\n'],
    [
      'set a 5 0 1\r\nx\r\nappend a 7 0 1\r\ny\r\nprepend a 9 0 1\r\nz\r\nget a\r\n',
      'STORED\r\nSTORED\r\nSTORED\r\nVALUE a 5 3\r\nzxy\r\nEND\r\n',
    ],
    [
      'set a 0 0 1\r\nx\r\ngets a\r\ncas a 0 0 1 1\r\ny\r\ncas a 0 0 1 1\r\nz\r\ngets a\r\n',
      'STORED\r\nVALUE a 0 1 1\r\nx\r\nEND\r\nSTORED\r\nEXISTS\r\nVALUE a 0 1 2\r\ny\r\nEND\r\n',
    ],
    ['cas a 0 0 1 18446744073709551615\r\nx\r\n', 'NOT_FOUND\r\n'],
    [`${given('x')}cas a 0 0 1 0\r\ny\r\nget a\r\n`, 'EXISTS\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    [`set a 0 -1 1\r\nx\r\nget a\r\n`, 'STORED\r\nEND\r\n'],
    ['set a 0 9223372036854775807 1\r\nx\r\nget a\r\n', 'STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    // What is no "noreply" at the end is ignored, as in memcached.
    ['set a 0 0 1 yesreply\r\nx\r\n', 'STORED\r\n'],
    ['set a +1 +0 +1\r\nx\r\nget a\r\n', 'STORED\r\nVALUE a 1 1\r\nx\r\nEND\r\n'],
  ],
  'keys and values of any bytes': [
    [`set ${key(250)} 0 0 1\r\nx\r\nget ${key(250)}\r\n`, `STORED\r\nVALUE ${key(250)} 0 1\r\nx\r\nEND\r\n`],
    ['set \t\x01\xff\x00 0 0 1\r\nx\r\nget \t\x01\xff\x00\r\n', 'STORED\r\nVALUE \t\x01\xff\x00 0 1\r\nx\r\nEND\r\n'],
    ['set a\rb 0 0 1\r\nx\r\nget a\rb\r\n', 'STORED\r\nVALUE a\rb 0 1\r\nx\r\nEND\r\n'],
    ['set a 0 0 6\r\n\r\n\x00\xff\r\n\r\nget a\r\n', 'STORED\r\nVALUE a 0 6\r\n\r\n\x00\xff\r\n\r\nEND\r\n'],
    ['set a 0 0 9\r\nget a\r\nmn\r\nget a\r\n', 'STORED\r\nVALUE a 0 9\r\nget a\r\nmn\r\nEND\r\n'],
  ],
  retrieval: [
    ['get a b c\r\n', 'END\r\n'],
    [`${given('x')}get a b a\r\n`, 'VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    [`${given('x')}gets a b a\r\n`, 'VALUE a 0 1 1\r\nx\r\nVALUE a 0 1 1\r\nx\r\nEND\r\n'],
    [`${given('x')}  get   a  \r\n`, 'VALUE a 0 1\r\nx\r\nEND\r\n'],
    [`get good ${key(251)}\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    ['get\r\ngets\r\nget \r\n', 'ERROR\r\nERROR\r\nERROR\r\n'],
    // A multi-get is no place for noreply.
    ['set noreply 0 0 1\r\nx\r\nget noreply\r\n', 'STORED\r\nVALUE noreply 0 1\r\nx\r\nEND\r\n'],
  ],
  'get and touch': [
    [`${given('x')}gat 0 a b a\r\n`, 'VALUE a 0 1\r\nx\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    [`${given('x')}gats 100 a\r\ngets a\r\n`, 'VALUE a 0 1 1\r\nx\r\nEND\r\nVALUE a 0 1 1\r\nx\r\nEND\r\n'],
    [`${given('x')}gat -1 a\r\nget a\r\n`, 'VALUE a 0 1\r\nx\r\nEND\r\nEND\r\n'],
    ['gat\r\ngats\r\ngat 0\r\ngats 0\r\n', 'ERROR\r\nERROR\r\nERROR\r\nERROR\r\n'],
    [`gat x a\r\ngat a 0\r\ngat x ${key(251)}\r\n`, BAD_EXPTIME.repeat(3)],
    [`gat 0 a ${key(251)}\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`${given('x')}touch a -1\r\nget a\r\ntouch a 0\r\n`, 'TOUCHED\r\nEND\r\nNOT_FOUND\r\n'],
    ['touch\r\ntouch a\r\ntouch a 0 0 0\r\n', 'ERROR\r\n'.repeat(3)],
    ['touch a x\r\n', BAD_EXPTIME],
    [`touch ${key(251)} x\r\n`, BAD_LINE],
    [`touch a 0 noreply\r\ntouch a x noreply\r\ntouch a noreply\r\n${MN}`, 'MN\r\n'],
  ],
  delete: [
    [`${given('x')}delete a\r\ndelete a\r\nget a\r\n`, 'DELETED\r\nNOT_FOUND\r\nEND\r\n'],
    [`${given('x')}delete a 0\r\n`, 'DELETED\r\n'],
    [`${given('x')}delete a noreply\r\nget a\r\n`, 'END\r\n'],
    [`${given('x')}delete a 0 noreply\r\nget a\r\n`, 'END\r\n'],
    ['delete a 1\r\ndelete a 00\r\ndelete a 0 0\r\ndelete a 0 x\r\ndelete a noreply 0\r\n', BAD_DELETE.repeat(5)],
    [`${given('x')}delete a 1 noreply\r\nget a\r\n`, 'VALUE a 0 1\r\nx\r\nEND\r\n'],
    ['delete\r\ndelete a 0 noreply x\r\n', 'ERROR\r\nERROR\r\n'],
    [`delete ${key(251)}\r\ndelete ${key(251)} noreply\r\n`, BAD_LINE],
  ],
  arithmetic: [
    [`${given('10')}incr a 5\r\ndecr a 3\r\n`, '15\r\n12\r\n'],
    [`${given('10')}decr a 1\r\nget a\r\n`, '9\r\nVALUE a 0 2\r\n9 \r\nEND\r\n'],
    [`${given('18446744073709551615')}incr a 1\r\n`, '0\r\n'],
    [`${given('5')}incr a 18446744073709551615\r\ndecr a 9\r\n`, '4\r\n0\r\n'],
    [`${given(' 12')}incr a 1\r\n`, '13\r\n'],
    ['incr a 1\r\ndecr a 1\r\n', 'NOT_FOUND\r\nNOT_FOUND\r\n'],
    [`${given('x')}incr a 1\r\n`, NON_NUMERIC],
    // Checked before the key is looked up.
    ['incr a x\r\nincr a -1\r\nincr a 18446744073709551616\r\ndecr a 1x\r\n', BAD_DELTA.repeat(4)],
    [`incr ${key(251)} x\r\n`, BAD_LINE],
    ['incr\r\nincr a\r\nincr a 1 noreply x\r\n', 'ERROR\r\n'.repeat(3)],
    [`${given('1')}incr a 1 noreply\r\nincr a x noreply\r\nincr a noreply\r\nget a\r\n`, 'VALUE a 0 1\r\n2\r\nEND\r\n'],
  ],
  flush_all: [
    [`${given('x')}flush_all\r\nget a\r\n`, 'OK\r\nEND\r\n'],
    [`${given('x')}flush_all 0\r\nget a\r\n`, 'OK\r\nEND\r\n'],
    [`${given('x')}flush_all -1\r\nget a\r\n`, 'OK\r\nEND\r\n'],
    [`${given('x')}flush_all noreply\r\nget a\r\n`, 'END\r\n'],
    [`${given('x')}flush_all 1000\r\nget a\r\n`, 'OK\r\nVALUE a 0 1\r\nx\r\nEND\r\n'],
    [`${given('x')}flush_all 1000 noreply\r\nget a\r\n`, 'VALUE a 0 1\r\nx\r\nEND\r\n'],
    ['flush_all x\r\nflush_all noreply 5\r\n', BAD_EXPTIME.repeat(2)],
    ['flush_all 0 0 0\r\n', 'ERROR\r\n'],
  ],
  'the rest': [
    ['version\r\nversion x\r\n', 'VERSION 1.6.45\r\nVERSION 1.6.45\r\n'],
    ['mn\r\nmn x\r\n', 'MN\r\nMN\r\n'],
    ['verbosity 1\r\nverbosity 1 2\r\n', 'OK\r\nOK\r\n'],
    ['verbosity\r\nverbosity 1 2 3\r\n', 'ERROR\r\nERROR\r\n'],
    ['verbosity x\r\n', BAD_LINE],
    [`verbosity 1 noreply\r\nverbosity noreply\r\n${MN}`, 'MN\r\n'],
    ['shutdown\r\nshutdown graceful\r\n', 'ERROR: shutdown not enabled\r\n'.repeat(2)],
    ['quit\r\nmn\r\n', ''],
    ['mn\r\nquit now\r\nmn\r\n', 'MN\r\n'],
    [
      'lru_crawler\r\nlru_crawler metadump\r\nslabs automove 0\r\nwatch\r\ncache_memlimit 64\r\n',
      'ERROR\r\n'.repeat(5),
    ],
    ['lru_crawler metadump foo\r\n', 'BADCLASS invalid class id\r\n'],
  ],
  'what is no command': [
    ['\r\n\n \r\na\r\nfoo\r\nfoo noreply\r\nSET a 0 0 1\r\n', 'ERROR\r\n'.repeat(7)],
    ['set\r\nset a\r\nset a 0 0\r\nset noreply\r\nset a 0 noreply\r\n', 'ERROR\r\n'.repeat(5)],
    ['set a 0 0 1 noreply x\r\ncas a 0 0 1\r\ncas a 0 0 1 1 noreply x\r\n', 'ERROR\r\n'.repeat(3)],
    [`${'x'.repeat(2046)}\r\n${MN}`, 'ERROR\r\nMN\r\n'],
    ['GET / HTTP/1.1\r\nHost: x\r\n\r\n', ''],
    ['mn\r\nPOST /x HTTP/1.0\r\nmn\r\n', 'MN\r\n'],
    ['get HTTP/1.1\r\nmn\r\n', 'END\r\nMN\r\n'],
    ['x'.repeat(2049), ''],
    [`gat 0 ${'a '.repeat(1500)}\r\n${MN}`, ''],
    [`get ${'a '.repeat(3000)}\r\n${MN}`, 'END\r\nMN\r\n'],
    [`gets ${`${key(250)} `.repeat(700)}\r\n${MN}`, 'END\r\nMN\r\n'],
    [`  get ${'a '.repeat(3000)}\r\n${MN}`, 'END\r\nMN\r\n'],
  ],
  'refused lines, whose data block is taken off the stream': [
    [`set a x 0 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 x 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 9223372036854775808 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a -1 0 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 4294967296 0 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0x1 0 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`cas a 0 0 1 x\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`cas a 0 0 1 -1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`cas a 0 0 1 18446744073709551616\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set ${key(251)} 0 0 1\r\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set ${key(251)} 0 0 6\r\nmn\r\nmn\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set ${key(251)} 0 0 1 noreply\r\nx\r\n${MN}`, 'MN\r\n'],
    [`set a x 0 1\nx\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a x 0 1\nx\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    // Without a length there is no block.
    [`set a 0 0 -1\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 0 x\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 0 2147483646\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 0 99999999999\r\n${MN}`, `${BAD_LINE}MN\r\n`],
    [`set a 0 0 -1 noreply\r\nset a 0 0 noreply\r\n${MN}`, 'MN\r\n'],
    ['set a 0 0 2147483645\r\nmn\r\n', TOO_LARGE],
  ],
  'the end of a data block': [
    ['set a 0 0 5\r\nhelloXXget a\r\n', `${BAD_CHUNK}END\r\n`],
    ['set a 0 0 5\r\nhello!\r\nget a\r\n', `${BAD_CHUNK}ERROR\r\nEND\r\n`],
    ['set a 0 0 5\r\nhello\nget a\r\n', `${BAD_CHUNK}ERROR\r\n`],
    [`set a 0 0 5 noreply\r\nhelloXX${MN}`, 'MN\r\n'],
    ['set a 0 0 5\nhello\nget a\n', 'STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n'],
    ['set a 0 0 5\nhello\r\nget a\n', 'STORED\r\nVALUE a 0 5\r\nhello\r\nEND\r\n'],
    ['set a 0 0 5\nhelloXXget a\n', `${BAD_CHUNK}END\r\n`],
    ['set a 0 0 5\nhello\rXget a\n', `${BAD_CHUNK}END\r\n`],
    ['set a 0 0 0\n\nget a\n', 'STORED\r\nVALUE a 0 0\r\n\r\nEND\r\n'],
    ['set a 0 0 2\n\r\n\nget a\n', 'STORED\r\nVALUE a 0 2\r\n\r\n\r\nEND\r\n'],
  ],
};

describe('a client on the port', () => {
  for (const [subject, rows] of Object.entries(TABLES)) {
    it(`gets memcached's replies: ${subject}`, async () => {
      for (const [sent, replies] of rows) {
        const { port } = await serveStore();
        expect(await converse(port, sent), JSON.stringify(sent.slice(0, 200))).toBe(replies);
      }
    });
  }

  it('is refused an item that is too large, by any command, and a failed set takes the old value', async () => {
    const { port } = await serveStore({ itemBytesMax: 1024 }, new FakeReplica({ itemBytesMax: 1024 }));
    const fits = 'x'.repeat(1024 - 59 - 1);
    const big = `${fits}x`;
    expect(await converse(port, `set a 0 0 ${fits.length}\r\n${fits}\r\n`)).toBe('STORED\r\n');
    const old = `VALUE a 0 ${fits.length}\r\n${fits}\r\nEND\r\n`;
    for (const command of ['add', 'replace', 'append', 'prepend']) {
      const replies = await converse(port, `${command} a 0 0 ${big.length}\r\n${big}\r\nget a\r\n`);
      expect(replies, command).toBe(TOO_LARGE + old);
    }
    expect(await converse(port, `cas a 0 0 ${big.length} 1\r\n${big}\r\nget a\r\n`)).toBe(TOO_LARGE + old);
    expect(await converse(port, 'append a 0 0 1\r\nx\r\nget a\r\n')).toBe(TOO_LARGE + old);
    expect(await converse(port, `set a 0 0 ${big.length}\r\n${big}\r\nget a\r\n`)).toBe(`${TOO_LARGE}END\r\n`);
    expect(await converse(port, `${given('x')}set a 0 0 9999 noreply\n${'y'.repeat(9999)}\nget a\n`)).toBe('END\r\n');
  });

  it('is told when the store is full', async () => {
    const { port } = await serveStore({}, new FakeReplica({ storeBytesMax: 300 }));
    expect(await converse(port, 'set a 0 0 1\r\nx\r\nset b 0 0 1\r\nx\r\n')).toBe(`STORED\r\n${OUT_OF_MEMORY}`);
  });

  it('gets a large value back whole', async () => {
    const { port } = await serveStore();
    const value = Array.from({ length: 1_000_000 }, (_, i) => String.fromCharCode((i * 7) % 256)).join('');
    const replies = await converse(port, `set a 0 0 ${value.length}\r\n${value}\r\nget a a\r\nmn\r\n`);
    const block = `VALUE a 0 ${value.length}\r\n${value}\r\n`;
    expect(replies === `STORED\r\n${block}${block}END\r\nMN\r\n`).toBe(true);
  });

  it('lists the keys, encoded as in a URI', async () => {
    const { port } = await serveStore();
    const replies = await converse(
      port,
      'set a%b 0 0 3\r\nxyz\r\nset \x01\xff\t 0 4102444800 1\r\nx\r\nlru_crawler metadump all\r\nmn\r\n',
    );
    const lines = replies.replaceAll(/ la=\d{10} /g, ' la=<now> ').split('\n');
    expect(lines.slice(2, 4).sort()).toEqual([
      'key=%01%FF%09 exp=4102444800 la=<now> cas=2 fetch=no cls=1 size=63',
      'key=a%25b exp=-1 la=<now> cas=1 fetch=no cls=1 size=65',
    ]);
    expect(lines.slice(4)).toEqual(['END\r', 'MN\r', '']);
  });
});
