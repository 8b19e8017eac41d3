import type { Clock } from '../../base/clock.ts';
import type { Transport } from '../../transport/types.ts';

/**
 * With `guardedDisk`, what keeps a process silent that no longer holds the lock of its data directory. A process that was
 * suspended for long finds out here, before it acts on what it knew: another process may have voted with its node id since.
 * All of it does nothing while `check` is false.
 */

/** No timer fires, and no turn is completed, so that also reads that need no other node are not answered. */
export function guardedClock(clock: Clock, check: () => boolean): Clock {
  const guard = (callback: () => void) => () => {
    if (check()) callback();
  };
  return {
    wallMs: () => clock.wallMs(),
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, callback) => clock.after(delayMs, guard(callback)),
    endOfTurn: (callback) => clock.endOfTurn(guard(callback)),
  };
}

/** No frame is sent. */
export function guardedTransport(transport: Transport, check: () => boolean): Transport {
  return {
    start: (events) => transport.start(events),
    send: (peer, parts) => check() && transport.send(peer, parts),
    isUp: (peer) => transport.isUp(peer),
    sendBulk: (peer, parts) => check() && transport.sendBulk(peer, parts),
    setPeers: (peers, removedIds) => transport.setPeers(peers, removedIds),
    setClusterId: (clusterId) => transport.setClusterId(clusterId),
    stop: () => transport.stop(),
  };
}
