import type { ReadCompletion, Replica, ReplicaStatus } from '../../replica/types.ts';

/** Whether this node can serve now, and if not, why. `reason` is empty where it can. */
export interface Readiness {
  readonly ready: boolean;
  readonly reason: string;
}

export const RECOVERING = notReady('recovering the log');
const CATCHING_UP = notReady('catching up: no commit index confirmed by a quorum since the start has been applied yet');
const LEADERLESS = notReady('no leader');
const READY: Readiness = { ready: true, reason: '' };

/**
 * Watches a fresh replica become able to serve. One linearizable read proves it: it completes once a quorum has
 * confirmed a commit index and this node has applied up to it. `onServing` is called once, at that moment.
 */
export function watchReadiness(replica: Pick<Replica, 'read' | 'status'>, onServing: () => void): () => Readiness {
  let confirmed = false;
  const completion: ReadCompletion = {
    readable() {
      confirmed = true;
      onServing();
    },
    readFailed(failure) {
      // The replica held the read for a whole request timeout, so asking again at once is no busy loop.
      if (failure === 'timeout') replica.read(completion);
    },
  };
  replica.read(completion);
  return () => {
    const status = replica.status();
    if (confirmed && status.leader !== 0) return READY;
    // The replica knows better than any guess from here.
    if (status.healthProblem !== '') return notReady(status.healthProblem);
    if (isNotMember(status))
      return notReady(`this node is not a member of the cluster; to add it: raftkv member add ${status.nodeId}`);
    return confirmed ? LEADERLESS : CATCHING_UP;
  };
}

/** A newcomer that was not added to the cluster yet. */
function isNotMember({ lifecycle, nodeId, voters, learners }: ReplicaStatus): boolean {
  return lifecycle === 'recovering' && !voters.includes(nodeId) && !learners.includes(nodeId);
}

function notReady(reason: string): Readiness {
  return { ready: false, reason };
}
