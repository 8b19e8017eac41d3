import type { Configuration, Message, NodeId } from '../../src/raft/state/types.ts';
import { configurationWith } from './configurations.ts';
import { type ClusterOptions, CoreCluster } from './core-cluster.ts';

/** A cluster for scenarios told by hand: short timeouts, no chance, and helpers that move it along. */
export const ELECTION_TIMEOUT_TICKS = 10;
export const HEARTBEAT_INTERVAL_TICKS = 3;

/** Without ticks nothing repeats itself: far fewer rounds than this are enough, unless two cores answer each other for ever. */
const STABILIZE_ROUNDS_MAX = 1000;

export function votersOf(count: number): Configuration {
  return configurationWith({ voters: Array.from({ length: count }, (_, i) => i + 1) });
}

export function smallCluster(configuration: Configuration, options: Partial<ClusterOptions> = {}): CoreCluster {
  return new CoreCluster({
    configuration,
    electionTimeoutTicks: ELECTION_TIMEOUT_TICKS,
    heartbeatIntervalTicks: HEARTBEAT_INTERVAL_TICKS,
    appendBytesMax: 1000,
    flow: { inflightMessagesMax: 8, inflightBytesMax: 10_000 },
    cacheBytesMax: 1_000_000,
    randomOf: () => () => 0,
    ...options,
  });
}

export function tick(cluster: CoreCluster, id: NodeId, times = 1): void {
  for (let i = 0; i < times; i++) cluster.step(id, { kind: 'tick' });
}

/** Disks finish, where they do, and messages arrive, in order, until nothing is under way any more. */
export function stabilize(
  cluster: CoreCluster,
  isLost: (message: Message) => boolean = () => false,
  diskWorks: (id: NodeId) => boolean = () => true,
): void {
  let rounds = 0;
  for (let moved = true; moved; ) {
    moved = false;
    if (rounds++ > STABILIZE_ROUNDS_MAX) throw new Error('the cluster never comes to rest');
    for (const id of cluster.nodes.keys()) {
      if (diskWorks(id) && cluster.flushDisk(id)) moved = true;
      while (cluster.serveReadBack(id) || cluster.moveTransfer(id) || cluster.remember(id)) moved = true;
    }
    cluster.wire = cluster.wire.filter((message) => !isLost(message));
    if (cluster.wire.length > 0) moved = true;
    while (cluster.wire.length > 0) cluster.deliver(0);
  }
  for (const id of cluster.nodes.keys()) cluster.apply(id);
}

/** `id` loses patience, and whatever comes of that happens. */
export function elect(cluster: CoreCluster, id: NodeId): void {
  tick(cluster, id, ELECTION_TIMEOUT_TICKS);
  stabilize(cluster);
}

/** The process of `id` dies, which the others notice. */
export function crash(cluster: CoreCluster, id: NodeId): void {
  cluster.crash(id);
  for (const peer of cluster.nodes.keys()) cluster.step(peer, { kind: 'linkLost', peer: id });
}

/** It starts again, and is linked with the others. */
export function restart(cluster: CoreCluster, id: NodeId): void {
  cluster.start(id);
  for (const peer of cluster.nodes.keys()) {
    if (peer === id) continue;
    cluster.step(peer, { kind: 'linkUp', peer: id });
    cluster.step(id, { kind: 'linkUp', peer });
  }
}
