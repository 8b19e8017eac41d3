import { connect, createServer, type Socket } from 'node:net';

/**
 * A stretch of wire between two nodes that a test can cut: it carries bytes from a port to another, and while it is cut
 * it carries none. Nobody's connection closes, as when a switch dies; on healing, what waited goes on.
 *
 * ```
 *  node that dials ──▶ port │ cut? │ ──▶ target port of the other node
 * ```
 */
export interface CuttableLink {
  cut(): void;
  heal(): void;
  close(): void;
}

const HOST = '127.0.0.1';

export function openCuttableLink(port: number, targetPort: number): Promise<CuttableLink> {
  const sockets = new Set<Socket>();
  let isCut = false;
  const join = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on('data', (bytes) => {
      if (!to.write(bytes)) from.pause();
    });
    to.on('drain', () => {
      if (!isCut) from.resume();
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
    if (isCut) from.pause();
  };
  const server = createServer({ noDelay: true }, (near) => {
    const far = connect({ host: HOST, port: targetPort, noDelay: true });
    join(near, far);
    join(far, near);
  });
  return new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen({ host: HOST, port }, () => {
      server.unref();
      resolve({
        cut() {
          isCut = true;
          for (const socket of sockets) socket.pause();
        },
        heal() {
          isCut = false;
          for (const socket of sockets) socket.resume();
        },
        close() {
          server.close();
          for (const socket of sockets) socket.destroy();
        },
      });
    });
  });
}
