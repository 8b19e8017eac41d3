import type { Core } from '../raft/core.ts';
import type { NodeId, Standing } from '../raft/types.ts';
import type { StandingNews } from './wire.ts';

/**
 * How a node with an empty data directory learns what it is. A new cluster forms once all its configured members have
 * met and all are blank. Where any of them has belonged to a cluster, there is one, and this node has lost its part of
 * it, or is a newcomer: it recovers. So a wiped disk never votes as if it remembered, and nodes that are wiped while
 * the others are away don't begin a second, empty cluster beside the first.
 *
 *   link up ─▶ tell each other the standing ─▶ blank, all others linked and blank ─▶ member, durable, may vote
 *                                          └─▶ blank, another is no longer blank ─▶ recovering, durable, asks the leader
 */
export interface FormationContext {
  readonly core: Core;
  /** All nodes that the cluster begins with. Null for a newcomer, which waits to be added. */
  readonly founders: readonly NodeId[] | null;
  readonly send: (to: NodeId, news: StandingNews) => void;
  /** Makes it durable, then tells the core. Called once. */
  readonly become: (standing: 'recovering' | 'member') => void;
}

export class Formation {
  private readonly context: FormationContext;
  /** What those whose links stand have said. */
  private readonly heard = new Map<NodeId, Standing>();
  private readonly linked = new Set<NodeId>();
  private decided = false;

  constructor(context: FormationContext) {
    this.context = context;
  }

  /** To be called when the replica starts. */
  begin(): void {
    if (this.context.core.standing !== 'blank') return;
    if (this.context.founders === null) this.decide('recovering');
    else this.consider();
  }

  linkUp(peer: NodeId): void {
    this.linked.add(peer);
    this.context.send(peer, { kind: 'standing', standing: this.announced() });
  }

  linkLost(peer: NodeId): void {
    this.linked.delete(peer);
    this.heard.delete(peer);
  }

  receive(peer: NodeId, { standing }: StandingNews): void {
    this.heard.set(peer, standing);
    this.consider();
  }

  /** The standing, or what a node has done that shows it, has changed. */
  announce(): void {
    const standing = this.announced();
    for (const peer of this.linked) this.context.send(peer, { kind: 'standing', standing });
  }

  /**
   * A member that has not done anything yet is as good as blank: it met the others, but one of them may have died before
   * it could remember that, and must not be taken for wiped. (Once a term has begun, a quorum does remember.)
   */
  private announced(): Standing {
    const { core } = this.context;
    const { standing, term, log } = core;
    return standing === 'member' && term === 0 && log.lastIndex === 0 ? 'blank' : standing;
  }

  private consider(): void {
    const { core, founders } = this.context;
    if (core.standing !== 'blank' || this.decided || founders === null) return;
    if ([...this.heard.values()].some((standing) => standing !== 'blank')) this.decide('recovering');
    else if (founders.every((id) => id === core.id || this.heard.get(id) === 'blank')) this.decide('member');
  }

  private decide(standing: 'recovering' | 'member'): void {
    if (this.decided) return;
    this.decided = true;
    this.context.become(standing);
  }
}
