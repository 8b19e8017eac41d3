import type { ReadOwner, Replica } from '../replica/types.ts';

/** Whether this node can serve now, and if not, why. `reason` is empty where it can. */
export interface Readiness {
  readonly ready: boolean;
  readonly reason: string;
}

export const RECOVERING: Readiness = { ready: false, reason: 'recovering the log' };
const CATCHING_UP: Readiness = {
  ready: false,
  reason: 'no quorum has confirmed a commit index since the start, or it is not applied yet',
};
const LEADERLESS: Readiness = { ready: false, reason: 'no leader is known' };
const READY: Readiness = { ready: true, reason: '' };

/**
 * Watches a fresh replica become able to serve. One linearizable read proves it: it completes once a quorum has
 * confirmed a commit index and this node has applied up to it. `onServing` is called once, at that moment.
 */
export function watchReadiness(replica: Pick<Replica, 'read' | 'status'>, onServing: () => void): () => Readiness {
  let confirmed = false;
  const owner: ReadOwner = {
    readable() {
      confirmed = true;
      onServing();
    },
    readFailed(failure) {
      // The replica held the read for a whole request timeout, so asking again at once is no busy loop.
      if (failure === 'timeout') replica.read(owner);
    },
  };
  replica.read(owner);
  return () => {
    if (!confirmed) return CATCHING_UP;
    return replica.status().leader === 0 ? LEADERLESS : READY;
  };
}
