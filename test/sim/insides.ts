import type { NodeReplicaOptions } from '../../src/replica/loop/node-options.ts';
import type { NodeReplica } from '../../src/replica/loop/node-replica.ts';
import type { Origin } from '../../src/replica/writes/origin.ts';
import type { Wal } from '../../src/storage/wal/types.ts';

/** What a replica keeps to itself, and nobody but the simulator may look at. */

/** What the node has accepted from its clients, and under which session: its status does not say all of it. */
export function originOf(replica: NodeReplica): Origin {
  return Reflect.get(replica, 'origin') as Origin;
}

export function walOf(replica: NodeReplica): Wal {
  return (Reflect.get(replica, 'options') as NodeReplicaOptions).wal;
}
