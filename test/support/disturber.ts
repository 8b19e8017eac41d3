import { connect, type Socket } from 'node:net';

/**
 * Noisy neighbours, in a process of their own so that they take no time from the one that measures:
 * `disturber.ts <port> <kind> <count>`. Says 'ready' when they are at it, and ends with its parent.
 */
const HOST = '127.0.0.1';
/** Connections opened at a time, within the backlog of a port. */
const OPENED_AT_ONCE = 200;
const CHURN_TICK_MS = 10;
const SECOND_MS = 1000;
/** Each asks for a hundred times as much as the kernel and the node keep for it. */
const GETS_PER_READER = 10_000;
const BIG_KEY = 'disturber.big';
const BIG_VALUE_BYTES = 10_000;

const [port = '', kind = '', count = ''] = process.argv.slice(2);

function open(): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: HOST, port: Number(port) });
    socket.once('connect', () => resolve(socket));
    socket.on('error', reject);
  });
}

async function openAll(total: number): Promise<Socket[]> {
  const sockets: Socket[] = [];
  while (sockets.length < total) {
    const some = Math.min(OPENED_AT_ONCE, total - sockets.length);
    sockets.push(...(await Promise.all(Array.from({ length: some }, open))));
  }
  return sockets;
}

/** Sockets that are never read: nothing listens to their data. */
async function neverRead(readers: number): Promise<void> {
  const [writer] = await openAll(1);
  const value = 'x'.repeat(BIG_VALUE_BYTES);
  writer?.write(`set ${BIG_KEY} 0 0 ${BIG_VALUE_BYTES}\r\n${value}\r\n`);
  await new Promise((resolve) => writer?.once('data', resolve));
  for (const socket of await openAll(readers)) socket.write(`get ${BIG_KEY}\r\n`.repeat(GETS_PER_READER));
}

async function sendAByteASecond(writers: number): Promise<void> {
  const request = 'set disturber.slow 0 0 100\r\n';
  const sockets = await openAll(writers);
  let at = 0;
  const sendByte = () => {
    const byte = request[at++ % request.length] ?? '';
    for (const socket of sockets) socket.write(byte);
  };
  sendByte();
  setInterval(sendByte, SECOND_MS);
}

/** Opens that many connections a second, and closes each as soon as it stands, half of them in the middle of a word. */
function openAndClose(perSecond: number): void {
  const startMs = performance.now();
  let opened = 0;
  const catchUp = () => {
    for (; opened < ((performance.now() - startMs) * perSecond) / SECOND_MS; opened++) {
      const odd = opened % 2 === 1;
      open().then(
        (socket) => (odd ? socket.end('get disturb') : socket.destroy()),
        () => {},
      );
    }
  };
  setInterval(catchUp, CHURN_TICK_MS);
}

async function disturb(): Promise<void> {
  if (kind === 'idle') await openAll(Number(count));
  else if (kind === 'neverRead') await neverRead(Number(count));
  else if (kind === 'byteASecond') await sendAByteASecond(Number(count));
  else if (kind === 'openAndClose') openAndClose(Number(count));
  else throw new Error(`no such kind: ${kind}`);
}

process.once('disconnect', () => process.exit());
await disturb();
process.send?.('ready');
