import { connect as connectSocket, type Socket } from 'node:net';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';

/**
 * A client for tests: exact bytes out, exact reply texts in, any number of requests in flight on one connection.
 * Text is latin1, so that every byte is one character.
 *
 * ```
 *  request('get a\r\n', 'block') ──▶ socket ──▶ node
 *        ▲                                       │
 *        └─ oldest waiting reader ◀── replies ◀──┘
 * ```
 */

/** The request may or may not have taken effect: its connection broke, or its reply did not come in time. */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown';
}

/** What a reply looks like: one line, or lines and values up to `END`. An error is one line either way. */
type ReplyShape = 'line' | 'block';

interface Value {
  readonly key: string;
  readonly flags: number;
  readonly value: string;
  readonly unique: bigint | null;
}

export interface MemcachedClient {
  readonly port: number;
  readonly socket: Socket;
  /** Sends as is, expecting nothing. */
  send(bytes: string | Buffer): void;
  /** The next reply that is not waited for yet, without its last CRLF. */
  reply(shape?: ReplyShape): Promise<string>;
  request(bytes: string | Buffer, shape?: ReplyShape): Promise<string>;
  /** A storage command; `tail` stands between length and data, as a cas unique does. */
  store(command: string, key: string, value: string, options?: StoreOptions): Promise<string>;
  set(key: string, value: string, options?: StoreOptions): Promise<string>;
  /** The value, or null on a miss. Throws where the reply is an error. */
  get(key: string): Promise<string | null>;
  gets(...keys: string[]): Promise<Value[]>;
  /** Everything that still comes until the node closes the connection. */
  rest(): Promise<string>;
  /** Resolves once the connection is gone, whichever end closed it. */
  closed(): Promise<void>;
  isClosed(): boolean;
  /** Half-close: no more requests. */
  end(): void;
  destroy(): void;
}

interface StoreOptions {
  readonly flags?: number;
  readonly exptime?: number;
  readonly unique?: bigint;
}

interface Reader {
  readonly shape: ReplyShape;
  readonly timer: NodeJS.Timeout;
  resolve(text: string): void;
  reject(error: Error): void;
}

const HOST = '127.0.0.1';
const CONNECT_MS_MAX = 60_000;
/** Above the servers' own request timeout, so that a test sees the servers' answer. */
const REQUEST_MS_MAX = 90_000;

export function connect(
  port: number,
  requestMsMax = REQUEST_MS_MAX,
  tls: ConnectionOptions | null = null,
): Promise<MemcachedClient> {
  return new Promise((resolve, reject) => {
    const address = { host: HOST, port, noDelay: true };
    const socket = tls === null ? connectSocket(address) : connectTls({ ...address, ...tls });
    const timer = setTimeout(() => socket.destroy(new Error(`no connection to port ${port}`)), CONNECT_MS_MAX);
    socket.once('error', (error) => {
      clearTimeout(timer);
      reject(error);
    });
    socket.once(tls === null ? 'connect' : 'secureConnect', () => {
      clearTimeout(timer);
      resolve(clientOn(socket, port, requestMsMax));
    });
  });
}

function clientOn(socket: Socket, port: number, requestMsMax: number): MemcachedClient {
  const readers: Reader[] = [];
  let input: Buffer = Buffer.alloc(0);
  let lost: OutcomeUnknown | null = null;

  const giveUp = (why: string) => {
    lost ??= new OutcomeUnknown(why);
    for (const reader of readers.splice(0)) {
      clearTimeout(reader.timer);
      reader.reject(lost);
    }
  };
  const serveReaders = () => {
    for (let reader = readers[0]; reader !== undefined; reader = readers[0]) {
      const end = reader.shape === 'line' ? endOfLine(input, 0) : endOfBlock(input);
      if (end === -1) return;
      readers.shift();
      clearTimeout(reader.timer);
      reader.resolve(input.toString('latin1', 0, end).replace(/\r?\n$/, ''));
      input = input.subarray(end);
    }
  };
  socket.on('data', (bytes) => {
    input = input.length === 0 ? bytes : Buffer.concat([input, bytes]);
    serveReaders();
  });
  socket.on('error', (error) => giveUp(error.message));
  socket.on('close', () => giveUp('the connection was closed'));

  const reply = (shape: ReplyShape = 'line', to = 'what was sent') =>
    new Promise<string>((resolve, reject) => {
      if (lost !== null) return reject(lost);
      const timer = setTimeout(() => {
        giveUp(
          `no reply to ${to} within ${requestMsMax} ms; unread: ${JSON.stringify(input.toString('latin1', 0, 100))}`,
        );
        socket.destroy();
      }, requestMsMax);
      readers.push({ shape, timer, resolve, reject });
      serveReaders();
    });
  const send = (bytes: string | Buffer) => {
    socket.write(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes);
  };
  const request = (bytes: string | Buffer, shape: ReplyShape = 'line') => {
    const answer = reply(shape, JSON.stringify(bytes.slice(0, 60).toString()));
    send(bytes);
    return answer;
  };
  const store = (command: string, key: string, value: string, options: StoreOptions = {}) => {
    const { flags = 0, exptime = 0, unique } = options;
    const tail = unique === undefined ? '' : ` ${unique}`;
    return request(`${command} ${key} ${flags} ${exptime} ${value.length}${tail}\r\n${value}\r\n`);
  };
  const gets = async (...keys: string[]) => parseValues(await request(`gets ${keys.join(' ')}\r\n`, 'block'));
  return {
    port,
    socket,
    send,
    reply: (shape) => reply(shape),
    request,
    store,
    gets,
    set: (key, value, options) => store('set', key, value, options),
    async get(key) {
      return parseValues(await request(`get ${key}\r\n`, 'block'))[0]?.value ?? null;
    },
    async rest() {
      if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve));
      const text = input.toString('latin1');
      input = Buffer.alloc(0);
      return text;
    },
    closed: () => new Promise((resolve) => (socket.closed ? resolve() : socket.once('close', () => resolve()))),
    isClosed: () => lost !== null,
    end: () => void socket.end(),
    destroy: () => void socket.destroy(),
  };
}

/** Throws where the text is an error instead of values. */
function parseValues(text: string): Value[] {
  const values: Value[] = [];
  let at = 0;
  while (!text.startsWith('END', at)) {
    const lineEnd = text.indexOf('\r\n', at);
    const line = text.slice(at, lineEnd === -1 ? undefined : lineEnd);
    const [word, key = '', flags, length, unique] = line.split(' ');
    if (word !== 'VALUE') throw new Error(`not a value: ${JSON.stringify(line)}`);
    const start = lineEnd + 2;
    const end = start + Number(length);
    const value = text.slice(start, end);
    values.push({ key, flags: Number(flags), value, unique: unique === undefined ? null : BigInt(unique) });
    at = end + 2;
  }
  return values;
}

/** Position after the line that starts at `start`; -1 where it is not complete. Key listings end theirs in a bare newline. */
function endOfLine(input: Buffer, start: number): number {
  const end = input.indexOf('\n', start, 'latin1');
  return end === -1 ? -1 : end + 1;
}

function endOfBlock(input: Buffer): number {
  let at = 0;
  for (;;) {
    const end = endOfLine(input, at);
    if (end === -1) return -1;
    const line = input.toString('latin1', at, end).trimEnd();
    at = end;
    if (line === 'END' || /^(CLIENT_ERROR|SERVER_ERROR|ERROR|RESET|OK)/.test(line)) return at;
    if (line.startsWith('VALUE ')) at += Number(line.split(' ')[3]) + 2;
    if (at > input.length) return -1;
  }
}
