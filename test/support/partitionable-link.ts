import { connect, createServer, type Socket } from 'node:net';

/**
 * A stretch of wire between two nodes that a test can partition: it carries bytes from a port to another, and while it is partitioned
 * it carries none. No connection closes, as when a switch dies; on healing, what waited goes on.
 *
 * ```
 *  node that dials ──▶ port │ partitioned? │ ──▶ target port of the other node
 * ```
 */
export interface PartitionableLink {
  partition(): void;
  heal(): void;
  close(): void;
}

const HOST = '127.0.0.1';

export function openPartitionableLink(port: number, targetPort: number): Promise<PartitionableLink> {
  const sockets = new Set<Socket>();
  let isPartitioned = false;
  const join = (from: Socket, to: Socket) => {
    sockets.add(from);
    from.on('data', (bytes) => {
      if (!to.write(bytes)) from.pause();
    });
    to.on('drain', () => {
      if (!isPartitioned) from.resume();
    });
    from.on('error', () => to.destroy());
    from.on('close', () => {
      sockets.delete(from);
      to.destroy();
    });
    if (isPartitioned) from.pause();
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
        partition() {
          isPartitioned = true;
          for (const socket of sockets) socket.pause();
        },
        heal() {
          isPartitioned = false;
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
