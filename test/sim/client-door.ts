import type { Socket } from 'node:net';
import type { Clock } from '../../src/base/clock.ts';
import { Output } from '../../src/memcached/output.ts';
import { RequestParser } from '../../src/memcached/parser.ts';
import type { Replica } from '../../src/replica/types.ts';
import { type ClientLimits, DEFAULT_CLIENT_LIMITS } from '../../src/server/client-limits.ts';
import { Connection, type ConnectionHost } from '../../src/server/connection.ts';
import { newCounters } from '../../src/server/counters.ts';
import { SlotPool } from '../../src/server/slots.ts';
import type { NodeSocket } from './socket.ts';

/** The client port of one node without the listening socket: shipped connections on simulated sockets. */
export interface ClientDoor {
  accept(socket: NodeSocket): void;
  /** Answers what has come, then closes all; calls back when it has. */
  stop(stopped: () => void): void;
}

export function openClientDoor(clock: Clock, replica: Replica, limits: Partial<ClientLimits>): ClientDoor {
  const connections = new Set<Connection>();
  let stopping: (() => void) | null = null;
  const serving = servingOrder();
  let waitingForReplica: Connection[] = [];
  const replicaAccepts = () => {
    const waiting = waitingForReplica;
    waitingForReplica = [];
    for (const connection of waiting) {
      connection.awaitsReplica = false;
      serving(connection);
    }
  };
  const allLimits = { ...DEFAULT_CLIENT_LIMITS, ...limits };
  const host: ConnectionHost = {
    clock,
    replica,
    limits: allLimits,
    counters: newCounters(),
    parser: new RequestParser(allLimits),
    output: new Output(),
    slots: new SlotPool(),
    inputBytes: 0,
    serveSoon: serving,
    serveNextTurn: (connection) => clock.endOfTurn(() => serving(connection)),
    serveOnceAccepting(connection) {
      if (connection.awaitsReplica) return;
      connection.awaitsReplica = true;
      waitingForReplica.push(connection);
      if (waitingForReplica.length === 1) replica.onceAccepting(replicaAccepts);
    },
    writeStats: () => {},
    closed(connection) {
      connections.delete(connection);
      if (connections.size === 0) stopping?.();
    },
  };
  return {
    accept(socket) {
      connections.add(new Connection(socket as unknown as Socket, host));
    },
    stop(stopped) {
      const cancel = clock.after(allLimits.drainMsMax, () => {
        for (const connection of connections) connection.destroy();
      });
      stopping = () => {
        stopping = null;
        cancel();
        stopped();
      };
      if (connections.size === 0) stopping();
      for (const connection of connections) connection.finish();
    },
  };
}

function servingOrder(): (connection: Connection) => void {
  let listed: Connection[] = [];
  const serveAll = () => {
    while (listed.length > 0) {
      const round = listed;
      listed = [];
      for (const connection of round) {
        connection.listed = false;
        connection.serve();
      }
    }
  };
  return (connection) => {
    if (connection.listed) return;
    connection.listed = true;
    listed.push(connection);
    if (listed.length === 1) queueMicrotask(serveAll);
  };
}
