import { createServer, type Server } from 'node:net';

/**
 * Ports for processes that a test starts. Asking the system for a free port and closing it again races with every
 * other test, so a test owns a whole block instead: it holds the block's first port open as long as it uses the rest.
 * The blocks lie below the range from which the system takes ports for outgoing connections.
 */
const BLOCK_PORTS = 25;
const FIRST_PORT = 20_000;
const BLOCKS = 480;
const HOST = '127.0.0.1';

export interface PortBlock {
  readonly ports: readonly number[];
  release(): void;
}

export async function reservePorts(count: number): Promise<PortBlock> {
  if (count >= BLOCK_PORTS) throw new RangeError(`a block has ${BLOCK_PORTS - 1} ports, not ${count}`);
  const start = (process.pid * 7) % BLOCKS;
  for (let i = 0; i < BLOCKS; i++) {
    const base = FIRST_PORT + ((start + i) % BLOCKS) * BLOCK_PORTS;
    const guard = await listen(base);
    if (guard === null) continue;
    const ports = Array.from({ length: count }, (_, at) => base + 1 + at);
    if (await allFree(ports)) return { ports, release: () => void guard.close() };
    guard.close();
  }
  throw new Error(`no free block of ports from ${FIRST_PORT} on`);
}

async function allFree(ports: readonly number[]): Promise<boolean> {
  for (const port of ports) {
    const server = await listen(port);
    if (server === null) return false;
    await new Promise((resolve) => server.close(resolve));
  }
  return true;
}

function listen(port: number): Promise<Server | null> {
  return new Promise((resolve) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', () => resolve(null));
    server.listen({ host: HOST, port }, () => {
      server.unref();
      resolve(server);
    });
  });
}
