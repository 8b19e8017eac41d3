import { connect, type Socket } from 'node:net';

/** A raw client: bytes out, bytes in, as latin1 text. */
export class TextClient {
  received = '';
  closed = false;
  readonly socket: Socket;
  #changed: (() => void)[] = [];

  constructor(socket: Socket) {
    this.socket = socket;
    socket.setNoDelay(true);
    socket.on('data', (chunk: Buffer) => {
      this.received += chunk.toString('latin1');
      this.#notify();
    });
    socket.on('end', () => this.#notify());
    socket.on('error', () => {});
    socket.on('close', () => {
      this.closed = true;
      this.#notify();
    });
  }

  send(text: string): void {
    this.socket.write(text, 'latin1');
  }

  /** Sends and ends this side: half-close. */
  end(text = ''): void {
    this.socket.end(text, 'latin1');
  }

  destroy(): void {
    this.socket.destroy();
  }

  /** Waits until all that was received ends in `text`; takes it. */
  async reply(text: string): Promise<string> {
    await this.#until(() => this.received.endsWith(text), `…${JSON.stringify(text)}`);
    return this.take();
  }

  async bytes(count: number): Promise<string> {
    await this.#until(() => this.received.length >= count, `${count} bytes`);
    return this.take();
  }

  /** Waits for the other side's end; takes what came. */
  async rest(): Promise<string> {
    await this.#until(() => this.socket.readableEnded, 'the end', true);
    return this.take();
  }

  take(): string {
    const { received } = this;
    this.received = '';
    return received;
  }

  #until(satisfied: () => boolean, what: string, closeCounts = false): Promise<void> {
    return new Promise((resolve, reject) => {
      const check = () => {
        if (satisfied() || (closeCounts && this.closed)) resolve();
        else if (this.closed)
          reject(new Error(`closed while waiting for ${what}; got ${JSON.stringify(this.received)}`));
        else this.#changed.push(check);
      };
      check();
    });
  }

  #notify(): void {
    const waiting = this.#changed;
    this.#changed = [];
    for (const check of waiting) check();
  }
}

export function connectText(port: number): Promise<TextClient> {
  return new Promise((resolve, reject) => {
    const socket = connect({ port, host: '127.0.0.1', allowHalfOpen: true });
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(new TextClient(socket));
    });
  });
}

/** One conversation as netcat has it: everything sent, this side ended, every reply read. */
export async function converse(port: number, text: string): Promise<string> {
  const client = await connectText(port);
  client.end(text);
  const replies = await client.rest();
  client.destroy();
  return replies;
}

/** Lets the loop turn once: sockets that have bytes are read. */
export function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
