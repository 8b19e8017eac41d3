import { members } from '../../raft/state/configuration.ts';
import type { Core } from '../../raft/state/core.ts';
import type { Configuration, NodeId } from '../../raft/state/types.ts';
import type { PeerAddress, Transport } from '../../transport/types.ts';
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
export interface PeersContext {
  readonly core: Core;
  readonly transport: Pick<Transport, 'setPeers'>;
  /** The nodes that `cluster.json` lists. */
  readonly peerAddresses: readonly PeerAddress[];
  /** No leader has been heard of for long. */
  readonly isLost: () => boolean;
  readonly send: (to: NodeId, news: MembersNews) => void;
}

export class Peers {
  readonly #context: PeersContext;
  #configuration: Configuration | null = null;
  #committed: Configuration | null = null;
  #wasLost = false;
  /** What another node knew to be committed, where that is more than this one knows. */
  #heard: MembersNews | null = null;

  constructor(context: PeersContext) {
    this.#context = context;
  }

  /** To be called whenever the core may have changed its mind about members. */
  update(): void {
    const { core, isLost } = this.#context;
    const lost = isLost();
    const committed = core.configurations.committed.configuration;
    const isSame = core.configurations.current === this.#configuration && committed === this.#committed;
    if (isSame && lost === this.#wasLost) return;
    this.#configuration = core.configurations.current;
    this.#committed = committed;
    this.#wasLost = lost;
    this.#link();
  }

  /** Tells `peer`, which may have been away, who the members are. */
  tellMembers(peer: NodeId): void {
    const { core, send } = this.#context;
    const index = core.configurations.committed.index;
    if (index > 0) send(peer, { kind: 'membersNews', index, configuration: core.configurations.asOf(index) });
  }

  receive(news: MembersNews): void {
    if (news.index <= Math.max(this.#context.core.configurations.committed.index, this.#heard?.index ?? 0)) return;
    this.#heard = news;
    this.#link();
  }

  #link(): void {
    const { core, transport } = this.#context;
    const wanted = this.#wanted();
    // A node that is told of its removal ends its process, so only a committed removal may be told.
    const { removed } = core.configurations.committed.configuration;
    transport.setPeers(
      wanted,
      removed.filter((id) => !wanted.some((peer) => peer.id === id)),
    );
  }

  /** The members as others know them, while this node's own log does not reach so far. */
  get #ahead(): Configuration | null {
    const heard = this.#heard;
    return heard !== null && heard.index > this.#context.core.configurations.committed.index
      ? heard.configuration
      : null;
  }

  #wanted(): PeerAddress[] {
    const { core, peerAddresses } = this.#context;
    const ids = core.configurations.possibleMembers();
    // A new node knows only the nodes that its file lists. The file may still list nodes that were removed.
    const { removed } = core.configurations.committed.configuration;
    const isOutside = !ids.has(core.id) || this.#wasLost;
    if (isOutside) for (const { id } of peerAddresses) if (!removed.includes(id)) ids.add(id);
    if (this.#ahead !== null) for (const id of members(this.#ahead)) ids.add(id);
    ids.delete(core.id);
    return [...ids].flatMap((id) => this.#addressOf(id) ?? []);
  }

  #addressOf(id: NodeId): PeerAddress | null {
    const listed = this.#context.peerAddresses.find((node) => node.id === id);
    if (listed !== undefined) return listed;
    const known = this.#context.core.configurations.entries.map(({ configuration }) => configuration).reverse();
    for (const configuration of this.#ahead === null ? known : [this.#ahead, ...known]) {
      const address = configuration.details.find((detail) => detail.id === id)?.address;
      if (address) return { id, host: address.host, port: address.peerPort };
    }
    return null;
  }
}
