import { members } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import type { Configuration, NodeId } from '../../raft/state/types.ts';
import type { PeerAddress, Transport } from '../../transport/types.ts';
import type { Sender } from './sender.ts';
import type { MembersNews } from './wire.ts';

/**
 * With which nodes this node keeps links: the members of every configuration that can turn out to be in force, and after
 * it was away also those that other nodes say are members now. A node that has heard of no leader for long may have been
 * away while all members that it knew were replaced: then it also asks the nodes that its file lists.
 *
 * A removed member keeps its links until its removal is committed. Then they are closed with the reason, and each later
 * one is refused with the same reason; that is how it learns of its removal.
 *
 * Addresses of nodes that `cluster.json` lists come from there; those of the others are in the log.
 */
export interface PeersOptions {
  readonly transport: Pick<Transport, 'setPeers'>;
  /** The nodes that `cluster.json` lists. */
  readonly peerAddresses: readonly PeerAddress[];
}

export class Peers {
  readonly #options: PeersOptions;
  readonly #core: Core;
  readonly #sender: Pick<Sender, 'tell'>;
  #configuration: Configuration | null = null;
  #committed: Configuration | null = null;
  #wasLost = false;
  /** The newest committed configuration that another node knew, if it is newer than this node's. */
  #heard: MembersNews | null = null;

  constructor(options: PeersOptions, core: Core, sender: Pick<Sender, 'tell'>) {
    this.#options = options;
    this.#core = core;
    this.#sender = sender;
  }

  /** To be called when the members in the core, or `isLost`, may have changed. `isLost`: no leader has been heard of for long. */
  update(isLost: boolean): void {
    const { current, committed } = this.#core.configurations;
    const isSame = current === this.#configuration && committed.configuration === this.#committed;
    if (isSame && isLost === this.#wasLost) return;
    this.#configuration = current;
    this.#committed = committed.configuration;
    this.#wasLost = isLost;
    this.#link();
  }

  /** Tells `peer`, which may have been away, who the members are. */
  tellMembers(peer: NodeId): void {
    const { configurations } = this.#core;
    const { index } = configurations.committed;
    if (index > 0) this.#sender.tell(peer, { kind: 'membersNews', index, configuration: configurations.asOf(index) });
  }

  receive(news: MembersNews): void {
    if (news.index <= Math.max(this.#core.configurations.committed.index, this.#heard?.index ?? 0)) return;
    this.#heard = news;
    this.#link();
  }

  #link(): void {
    const wanted = this.#wanted();
    // A node that is told of its removal ends its process, so only a committed removal may be told.
    const { removed } = this.#core.configurations.committed.configuration;
    this.#options.transport.setPeers(
      wanted,
      removed.filter((id) => !wanted.some((peer) => peer.id === id)),
    );
  }

  /** The members as others know them, while this node's own log does not reach so far. */
  get #ahead(): Configuration | null {
    const heard = this.#heard;
    return heard !== null && heard.index > this.#core.configurations.committed.index ? heard.configuration : null;
  }

  #wanted(): PeerAddress[] {
    const { configurations, id: self } = this.#core;
    const ids = configurations.possibleMembers();
    // A new node knows only the nodes that its file lists. The file may still list nodes that were removed.
    const { removed } = configurations.committed.configuration;
    const isOutside = !ids.has(self) || this.#wasLost;
    if (isOutside) for (const { id } of this.#options.peerAddresses) if (!removed.includes(id)) ids.add(id);
    if (this.#ahead !== null) for (const id of members(this.#ahead)) ids.add(id);
    ids.delete(self);
    return [...ids].flatMap((id) => this.#addressOf(id) ?? []);
  }

  #addressOf(id: NodeId): PeerAddress | null {
    const listed = this.#options.peerAddresses.find((node) => node.id === id);
    if (listed !== undefined) return listed;
    const known = this.#core.configurations.entries.map(({ configuration }) => configuration).reverse();
    for (const configuration of this.#ahead === null ? known : [this.#ahead, ...known]) {
      const address = configuration.details.find((detail) => detail.id === id)?.address;
      if (address) return { id, host: address.host, port: address.peerPort };
    }
    return null;
  }
}
