import { describe, expect, it } from 'vitest';
import { newClient, serveStore } from '../../support/client-port.ts';
import { FakeReplica } from '../../support/fake-replica.ts';
import { converse } from '../../support/text-client.ts';

/** What memcached's own tests ask of the meta commands, as conversations: request, reply. */
async function talk(port: number, lines: readonly (readonly [string, string])[]): Promise<void> {
  const client = await newClient(port);
  for (const [request, expected] of lines) {
    client.send(`${request}\r\nmn\r\n`);
    expect([request, (await client.reply('MN\r\n')).slice(0, -4)]).toEqual([request, expected]);
  }
}

describe('meta commands', () => {
  it('lease a missing item to one client, whose cas unique then lets it in', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['mg lease s c v N30 t', 'VA 0 s0 c1 t30 W\r\n\r\n'],
      ['mg lease s c v N30 t', 'VA 0 s0 c1 t30 Z\r\n\r\n'],
      ['ms lease 2 C5000 T120\r\nnu', 'EX\r\n'],
      ['ms lease 2 C1 T120\r\nmu', 'HD\r\n'],
      ['mg lease s t c v N30', 'VA 2 s2 t120 c2\r\nmu\r\n'],
      ['mg lease s t v R130', 'VA 2 s2 t120 W\r\nmu\r\n'],
      ['mg lease s t v R130', 'VA 2 s2 t120 Z\r\nmu\r\n'],
    ]);
  });

  it('serve a stale value until one client has put a new one', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['set k 0 0 3\r\nmoo', 'STORED\r\n'],
      ['md k I T30', 'HD\r\n'],
      ['mg k s t c v', 'VA 3 s3 t30 c2 X W\r\nmoo\r\n'],
      ['mg k s t c v', 'VA 3 s3 t30 c2 Z X\r\nmoo\r\n'],
      ['ms k 1 T90 C1\r\nf', 'EX\r\n'],
      ['ms k 1 I T90 C1\r\nf', 'HD\r\n'],
      ['mg k t v', 'VA 1 t30 Z X\r\nf\r\n'],
      ['mg k c', 'HD c3 Z X\r\n'],
      ['ms k 1 T90 C3\r\ng', 'HD\r\n'],
      ['mg k t v', 'VA 1 t90\r\ng\r\n'],
    ]);
  });

  it('keep a cas unique of 64 bits that the client chose', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['ms k 1 E18446744073709551615 c\r\na', 'HD c18446744073709551615\r\n'],
      ['gets k', 'VALUE k 0 1 18446744073709551615\r\na\r\nEND\r\n'],
      ['cas k 0 0 1 18446744073709551614\r\nb', 'EXISTS\r\n'],
      ['cas k 0 0 1 18446744073709551615\r\nb', 'STORED\r\n'],
      ['ms k 1 E9007199254740993\r\na', 'HD\r\n'],
      ['md k C9007199254740992', 'EX\r\n'],
      ['md k C9007199254740993 q', ''],
      ['ms k 1 E18446744073709551616\r\na', 'CLIENT_ERROR bad token in command line format\r\n'],
    ]);
  });

  it('take a key in base64, store it as its bytes, and give it back as it came', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['ms AGEgCg== 2 b k\r\nhi', 'HD kAGEgCg== b\r\n'],
      ['mg AGEgCg== b v k s', 'VA 2 kAGEgCg== b s2\r\nhi\r\n'],
      ['ms Zm9v 2 b\r\nhi', 'HD\r\n'],
      ['mg foo v k', 'VA 2 kfoo\r\nhi\r\n'],
      ['me Zm9v b', expect.stringMatching(/^ME Zm9v b exp=-1 la=0 cas=2 fetch=yes cls=1 size=64\r\n$/)],
    ]);
  });

  it('count, from nothing where asked', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['ma n', 'NF\r\n'],
      ['ma n N0 J13 v q', 'VA 2\r\n13\r\n'],
      ['ma n q', ''],
      ['ma n MD D20 v c t', 'VA 1 c3 t-1\r\n0\r\n'],
      ['ma n C2 k O1', 'EX kn O1\r\n'],
      ['ma n T90 t E77 c', 'HD t90 c77\r\n'],
    ]);
  });

  it('hide what is as it should be with q, and never an error; mn tells when all are answered', async () => {
    const { port } = await serveStore();
    const quiet = 'ms k 1 q\r\na\r\nmg none v q\r\nma none q O5\r\nmd k q\r\nms k 1 MR q\r\na\r\nmg k q !\r\nmn\r\n';
    expect(await converse(port, quiet)).toBe('NF O5\r\nNS\r\nCLIENT_ERROR invalid flag\r\nMN\r\n');
  });

  it('tell whether this node was asked before, and leave that alone with u', async () => {
    const { port } = await serveStore();
    await talk(port, [
      ['set k 0 0 1\r\na', 'STORED\r\n'],
      ['mg k h l u', 'HD h0 l0\r\n'],
      ['mg k h', 'HD h0\r\n'],
      ['mg k h', 'HD h1\r\n'],
    ]);
  });

  it('write to the log only where they change something', async () => {
    const replica = new FakeReplica();
    replica.proposals = [];
    const { port } = await serveStore({}, replica);
    await converse(port, 'ms k 1 T100\r\na\r\nmg k v t N30 R50\r\nmg none v\r\nmg k h l\r\nme k\r\n');
    expect(replica.proposals).toEqual(['set k']);
    await converse(port, 'mg k R200\r\nmg k R200\r\nmg k T0\r\nmg new N1\r\nmd k I\r\nmg k\r\nmg k\r\n');
    const [, ...later] = replica.proposals;
    expect(later).toEqual(['metaGet k', 'metaGet k', 'metaGet new', 'metaDelete k', 'metaGet k']);
  });

  it('say so when a read that had to write came to no end', async () => {
    const replica = new FakeReplica();
    const { port } = await serveStore({}, replica);
    const client = await newClient(port);
    replica.hold = true;
    client.send('mg k N5\r\nmg other v\r\n');
    while (replica.pendingReads === 0) await new Promise((resolve) => setImmediate(resolve));
    replica.deliverReads();
    while (replica.pendingWrites === 0) await new Promise((resolve) => setImmediate(resolve));
    replica.fail('timeout');
    expect(await client.reply('EN\r\n')).toBe('SERVER_ERROR no quorum: outcome unknown\r\nEN\r\n');
  });
});

describe('the limits of meta commands', () => {
  const key = (bytes: number) => 'k'.repeat(bytes);
  const opaque = (bytes: number) => 'O'.padEnd(bytes, 'o');
  const flags = 's t c f v k h l u q b O P L T0 N0 R0 I'.split(' ');
  it.each([
    ['a key of 250 bytes', `mg ${key(250)}`, 'EN\r\n'],
    ['a key of 251 bytes', `mg ${key(251)}`, 'CLIENT_ERROR bad command line format\r\n'],
    ['ms with a key of 251 bytes: one reply', `ms ${key(251)} 2\r\nhi`, 'CLIENT_ERROR bad command line format\r\n'],
    ['an opaque of 32 bytes', `mg a ${opaque(32)}`, `EN ${opaque(32)}\r\n`],
    ['an opaque of 33 bytes', `mg a ${opaque(33)}`, 'CLIENT_ERROR opaque token too long\r\n'],
    ['17 flags', `mg YQ== ${flags.slice(0, 17).join(' ')}`, 'HD'],
    ['18 flags', `mg YQ== ${flags.join(' ')}`, 'CLIENT_ERROR options flags are too long\r\n'],
    ['F of 32 bits', 'ms a 1 F4294967295\r\nx', 'HD\r\n'],
    ['F of 33 bits', 'ms a 1 F4294967296\r\nx', 'CLIENT_ERROR bad command line format\r\n'],
    ['D of 64 bits', 'ma a D18446744073709551615', 'NF\r\n'],
    ['D of 65 bits', 'ma a D18446744073709551616', 'CLIENT_ERROR invalid numeric delta value\r\n'],
    ['the largest item', `ms a ${1000 - 60}\r\n${'x'.repeat(940)}`, 'HD\r\n'],
    ['one byte more', `ms a ${1000 - 59}\r\n${'x'.repeat(941)}`, 'SERVER_ERROR object too large for cache\r\n'],
  ])('%s', async (_, request, expected) => {
    const { port } = await serveStore({ itemBytesMax: 1000 }, new FakeReplica({ itemBytesMax: 1000 }));
    const replies = await converse(port, `${request}\r\nmn\r\n`);
    if (expected === 'HD') expect(replies).toMatch(/^VA 0 .*W\r\n\r\nMN\r\n$/);
    else expect(replies).toBe(`${expected}MN\r\n`);
  });

  it('a set of too much leaves nothing of the old value, as the classic one', async () => {
    const { port } = await serveStore({ itemBytesMax: 1000 });
    const big = 'x'.repeat(2000);
    const stream = `ms a 1\r\nx\r\nms a 2000 MA\r\n${big}\r\nmg a v\r\nms a 2000 k\r\n${big}\r\nmg a v\r\n`;
    const error = 'SERVER_ERROR object too large for cache\r\n';
    expect(await converse(port, stream)).toBe(`HD\r\n${error}VA 1\r\nx\r\n${error}EN\r\n`);
  });
});
