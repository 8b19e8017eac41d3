import { readFileSync } from 'node:fs';
import { connect as connectSocket, type Socket } from 'node:net';
import { beforeAll, describe, expect, it } from 'vitest';
import { FRAME_HEADER_BYTES, type FrameType, writeFrameHeader } from '../../src/transport/frame.ts';
import { encodeHello } from '../../src/transport/handshake.ts';
import { type Cluster, until } from '../support/cluster.ts';
import { seededRandom } from '../support/random.ts';
import { residentBytes } from '../support/stored-data.ts';

/**
 * Hostile clients at the ports: noise, half commands, absurd lengths, silent connections, readers that never read. The
 * node goes on serving. The short and the long tests differ in how many there are. `RAFTKV_SEED` repeats a run.
 */
export interface Crowd {
  /** Connections that send random bytes, at each kind of port. */
  readonly noise: number;
  readonly mangledCommands: number;
  /** What follows each absurd length. */
  readonly absurdMib: number;
  /** Values of 1 MB that are never finished. */
  readonly unfinished: number;
  /** Clients that ask for so many values of 1 MB each and never read. */
  readonly readers: number;
  readonly getsPerReader: number;
  readonly silentClients: number;
  readonly mangledFrames: number;
  readonly silentPeers: number;
  /** Handshakes that are right, with nonsense behind them. */
  readonly nonsense: number;
  /** What all of it may add to a node: its documented buffers, and garbage that was not worth collecting yet. */
  readonly growthMibMax: number;
}

const HOST = '127.0.0.1';
const SEED = Number(process.env['RAFTKV_SEED'] ?? Math.floor(Math.random() * 1e6));
const MIB = 1024 * 1024;
/** File descriptors that this process needs for other things. */
const SPARE_DESCRIPTORS = 500;
/** Elections that a slow machine may hold meanwhile. A forged term is far higher. */
const TERMS_MAX = 100;

const random = seededRandom(SEED);
const below = (limit: number) => Math.floor(random() * limit);

export function itSurvivesHostility(cluster: () => Cluster, crowd: Crowd): void {
  let idleBytes = 0;
  const mostBytes = () =>
    Math.max(
      ...cluster()
        .running()
        .map((id) => residentBytes(cluster().pid(id))),
    );
  beforeAll(() => {
    idleBytes = mostBytes();
    console.log(`RAFTKV_SEED=${SEED}; an idle node takes ${Math.round(idleBytes / MIB)} MiB`);
  });

  /** Every node serves a new client, and has not grown beyond bounds. */
  const expectHealthy = async (what: string) => {
    for (const id of cluster().running()) {
      const client = await cluster().connect(id);
      expect(await client.set(`healthy${id}`, what), what).toBe('STORED');
      expect(await client.get(`healthy${id}`), what).toBe(what);
      client.destroy();
    }
    const grownMib = Math.round((mostBytes() - idleBytes) / MIB);
    console.log(`${what}: grown by ${grownMib} MiB`);
    expect(grownMib, what).toBeLessThan(crowd.growthMibMax);
  };

  describe(`the client port (RAFTKV_SEED=${SEED})`, () => {
    it('survives noise and mangled commands', async () => {
      const ports = cluster().nodes.map(({ clientPort }) => clientPort);
      await inParallel(crowd.noise, 20, (i) => visit(ports[i % 3] ?? 0, [randomBytes(1 + below(20_000))]));
      await inParallel(crowd.mangledCommands, 20, (i) => {
        const bytes = mangledCommands();
        const at = below(bytes.length);
        return visit(ports[i % 3] ?? 0, [bytes.subarray(0, at), bytes.subarray(at)]);
      });
      await expectHealthy('after noise and mangled commands');
    });

    it('survives absurd lengths and lines without an end', async () => {
      const { clientPort } = cluster().node(1);
      const megabyte = Buffer.alloc(MIB, 'x');
      const openings = [
        'set k 0 0 2147483645\r\n',
        'set k 0 0 2147483646\r\n',
        'set k 0 0 1048000\r\n',
        'set k 0 0 99999999999999999999\r\n',
        'append k 0 0 67108864 noreply\r\n',
        '',
        'get ',
        'gets ',
        'gat 0 ',
        'delete ',
      ];
      for (const opening of openings) {
        await visit(clientPort, [Buffer.from(opening), ...Array.from({ length: crowd.absurdMib }, () => megabyte)]);
      }
      await expectHealthy('after absurd lengths');
    });

    it('holds many unfinished large values at once', async () => {
      const { clientPort } = cluster().node(2);
      const opening = Buffer.from('set large 0 0 1000000\r\n');
      const body = Buffer.alloc(900_000, 'x');
      const sockets = await Promise.all(
        Array.from({ length: crowd.unfinished }, async () => {
          const socket = await openSocket(clientPort);
          socket?.write(opening);
          socket?.write(body);
          return socket;
        }),
      );
      await expectHealthy(`with ${crowd.unfinished} unfinished values of 1 MB`);
      for (const socket of sockets) socket?.destroy();
      await expectHealthy('after unfinished values');
    });

    it('holds back for clients that never read their replies', async () => {
      const writer = await cluster().connect(3);
      await writer.set('big', 'x'.repeat(MIB - 1000));
      const requests = Buffer.from('get big\r\n'.repeat(crowd.getsPerReader));
      const sockets = await Promise.all(
        Array.from({ length: crowd.readers }, async () => {
          const socket = await openSocket(cluster().node(3).clientPort);
          socket?.pause();
          socket?.write(requests);
          return socket;
        }),
      );
      await expectHealthy(`with ${crowd.readers} clients that do not read ${crowd.getsPerReader} MB of replies each`);
      for (const socket of sockets) socket?.destroy();
      await expectHealthy('after clients that do not read');
    });

    it(`holds ${crowd.silentClients} connections that say nothing, and answers the others all the while`, async () => {
      const count = Math.min(crowd.silentClients, descriptorsMax() - SPARE_DESCRIPTORS);
      if (count < crowd.silentClients) console.warn(`only ${count} connections: this process may open no more files`);
      const leader = await cluster().leader();
      const { clientPort } = cluster().node(leader);
      const talker = await cluster().connect(leader);
      let talking = true;
      const talk = (async () => {
        while (talking) expect(await talker.set('talker', 'x')).toBe('STORED');
      })();
      // It is awaited at the end.
      talk.catch(() => {});
      const watcher = await cluster().connect(leader);
      const connections = async () =>
        Number(/STAT curr_connections (\d+)/.exec(await watcher.request('stats\r\n', 'block'))?.[1]);
      const before = await connections();
      const sockets: (Socket | null)[] = [];
      await inParallel(count, 200, async (i) => {
        sockets[i] = await openSocket(clientPort);
      });
      await until('all to be accepted', async () => (await connections()) >= count || undefined);
      await expectHealthy(`with ${count} silent connections`);
      for (const socket of sockets) socket?.destroy();
      await until('the connections to be gone', async () => (await connections()) <= before || undefined);
      talking = false;
      await talk;
      await expectHealthy('after silent connections');
    });
  });

  describe(`the peer port (RAFTKV_SEED=${SEED})`, () => {
    it('survives noise, mangled frames, absurd lengths and silence', async () => {
      const ports = cluster().nodes.map(({ peerPort }) => peerPort);
      const before = await cluster().status(1);
      await inParallel(crowd.noise, 20, (i) => visit(ports[i % 3] ?? 0, [randomBytes(1 + below(20_000))]));
      await inParallel(crowd.mangledFrames, 20, (i) => visit(ports[i % 3] ?? 0, mangledFrames()));
      const silent = await Promise.all(
        Array.from({ length: crowd.silentPeers }, (_, i) => openSocket(ports[i % 3] ?? 0)),
      );
      await expectHealthy(`with ${crowd.silentPeers} silent connections at the peer ports`);
      for (const socket of silent) socket?.destroy();
      await expectHealthy('after noise at the peer ports');
      expect((await cluster().status(1))?.term).toBeLessThan((before?.term ?? 0) + TERMS_MAX);
    });

    it('survives a peer that shakes hands and then talks nonsense', async () => {
      const victim = cluster().node(1);
      // The peer that nonsense comes from must not be there itself.
      await cluster().kill(3);
      const local = { selfId: 3, clusterName: 'test', clusterId: '', incarnation: 1000, isPeer: () => true };
      await inParallel(crowd.nonsense, 1, async (i) => {
        const hello = frame('hello', encodeHello({ ...local, incarnation: 1000 + i }, victim.id));
        const nonsense = Array.from({ length: 1 + below(5) }, () => {
          const payload = randomBytes(below(200));
          // A kind that exists, sometimes, so that the rest is looked at as well.
          if (payload.length > 0 && below(2) === 0) payload[0] = below(20);
          return frame('data', payload);
        });
        await visit(victim.peerPort, [hello, frame('ping', Buffer.alloc(0)), ...nonsense]);
      });
      // The nonsense was heard: it came behind handshakes that the node took for good.
      expect(cluster().lines().join('\n')).toMatch(
        /"node":1,"peer":3,"incarnation":1\d\d\d,"msg":"link to peer is up"/,
      );
      await cluster().start(3);
      await cluster().serving(3);
      await expectHealthy('after a peer that talks nonsense');
    });
  });
}

/** A connection whose errors and replies do not matter; null where it is refused. */
function openSocket(port: number): Promise<Socket | null> {
  return new Promise((resolve) => {
    const socket = connectSocket({ host: HOST, port });
    socket.once('connect', () => resolve(socket));
    socket.on('error', () => resolve(null));
  });
}

/** Sends the pieces and then ends, breaks off, or leaves the connection for a while. */
async function visit(port: number, pieces: readonly Buffer[]): Promise<void> {
  const socket = await openSocket(port);
  if (socket === null) return;
  socket.resume();
  for (const piece of pieces) {
    if (!socket.writable) break;
    if (!socket.write(piece)) await new Promise<void>((resolve) => waitFor(socket, 'drain', resolve));
  }
  if (below(2) === 0) socket.end();
  else socket.resetAndDestroy();
  if (!socket.closed) await new Promise<void>((resolve) => waitFor(socket, 'close', resolve));
}

/** A server that has lost interest may neither read nor close at once. */
const PATIENCE_MS = 300;
function waitFor(socket: Socket, event: 'drain' | 'close', resolve: () => void): void {
  const done = () => {
    clearTimeout(timer);
    socket.off('drain', done).off('close', done);
    resolve();
    if (event === 'close') socket.destroy();
  };
  const timer = setTimeout(done, PATIENCE_MS);
  socket.once('close', done);
  if (event === 'drain') socket.once('drain', done);
}

async function inParallel(count: number, atOnce: number, task: (i: number) => Promise<void>): Promise<void> {
  let next = 0;
  const worker = async () => {
    for (let i = next++; i < count; i = next++) await task(i);
  };
  await Promise.all(Array.from({ length: atOnce }, worker));
}

function randomBytes(length: number): Buffer {
  const bytes = Buffer.alloc(length);
  for (let i = 0; i < length; i++) bytes[i] = below(256);
  return bytes;
}

const COMMANDS = [
  'set k 0 0 5\r\nhello\r\n',
  'cas k 1 2 3 4\r\nabc\r\n',
  'append k 0 0 2 noreply\r\nxy\r\n',
  'get a b c\r\n',
  'gats 10 a b\r\n',
  'incr k 18446744073709551615\r\n',
  'delete k noreply\r\n',
  'touch k 100\r\n',
  'verbosity 1\r\n',
  'stats settings\r\n',
  'lru_crawler metadump all\r\n',
  'mn\r\n',
];

/** Commands run together with bytes changed, lost, repeated and strange numbers put in. */
function mangledCommands(): Buffer {
  let text = '';
  for (let count = 1 + below(10); count > 0; count--) text += COMMANDS[below(COMMANDS.length)];
  const numbers = ['-1', '0', '2147483645', '4294967296', '99999999999999999999', 'x', ''];
  text = text.replace(/\d+/g, (digits) => (below(4) === 0 ? (numbers[below(numbers.length)] ?? '') : digits));
  const bytes = Buffer.from(text, 'latin1');
  for (let changes = below(5); changes > 0; changes--) bytes[below(bytes.length)] = below(256);
  return bytes.subarray(0, below(2) === 0 ? bytes.length : below(bytes.length));
}

function frame(type: FrameType, payload: Buffer): Buffer {
  const header = Buffer.alloc(FRAME_HEADER_BYTES);
  writeFrameHeader(header, 0, type, [payload], payload.length);
  return Buffer.concat([header, payload]);
}

/** A handshake and frames of which something is wrong. */
function mangledFrames(): Buffer[] {
  const local = {
    selfId: below(5),
    clusterName: below(2) === 0 ? 'test' : 'other',
    clusterId: below(2) === 0 ? '' : randomBytes(16).toString('hex'),
    incarnation: below(3),
    isPeer: () => true,
  };
  const bytes = Buffer.concat([
    frame('hello', encodeHello(local, below(5))),
    frame('data', randomBytes(below(100))),
    frame('ping', randomBytes(below(20))),
  ]);
  for (let changes = 1 + below(4); changes > 0; changes--) bytes[below(bytes.length)] = below(256);
  if (below(5) === 0) bytes.writeUInt32LE(0xffff_fff0, 4);
  return [bytes.subarray(0, below(2) === 0 ? bytes.length : below(bytes.length))];
}

function descriptorsMax(): number {
  return Number(/Max open files\s+(\d+)/.exec(readFileSync('/proc/self/limits', 'latin1'))?.[1] ?? 1024);
}
