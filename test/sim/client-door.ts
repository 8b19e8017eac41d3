import type { Socket } from 'node:net';
import type { Clock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/logger.ts';
import type { Replica } from '../../src/replica/types.ts';
import { Clients, createHost } from '../../src/server/clients/client-port.ts';
import { Connection } from '../../src/server/clients/connection.ts';
import { type ClientLimits, DEFAULT_CLIENT_LIMITS } from '../../src/server/clients/limits.ts';
import type { NodeSocket } from './socket.ts';

/** The client port of one node without the listening socket: shipped connections on simulated sockets. */
export interface ClientDoor {
  accept(socket: NodeSocket): void;
  /** Answers what has come, then closes all; calls back when it has. */
  stop(stopped: () => void): void;
}

export function openClientDoor(clock: Clock, replica: Replica, differing: Partial<ClientLimits>): ClientDoor {
  const clients = new Clients();
  const limits = { ...DEFAULT_CLIENT_LIMITS, ...differing };
  const port = { host: 'simulated', port: 11211, version: '0.0.0', storeBytesMax: 0, logger: silentLogger };
  const host = createHost({ ...port, clock, replica }, limits, clients);
  return {
    accept(socket) {
      clients.connections.add(new Connection(socket as unknown as Socket, host));
    },
    stop(stopped) {
      const cancel = clock.after(limits.drainMsMax, () => {
        for (const connection of clients.connections) connection.destroy();
      });
      for (const connection of clients.connections) connection.finish();
      clients.onceGone(() => {
        cancel();
        stopped();
      });
    },
  };
}
