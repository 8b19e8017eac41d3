import { type Core, members } from '../../raft/core.ts';
import { configurationAsOf } from '../../raft/membership.ts';
import type { Configuration, NodeId } from '../../raft/types.ts';
import type { PeerAddress, Transport } from '../../transport/types.ts';
import type { MembersNews } from './wire.ts';

/**
 * Whom this node keeps links with: the members of the configuration in force, and who has just left it, until told so;
 * after it was away, also those that others say are members now. A node that has heard of no leader for long may have
 * been away while all whom it knew were replaced: then it asks those that its file lists, too.
 * `cluster.json` says where the nodes are that it lists; where the others are is in the log.
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
  private readonly context: PeersContext;
  private configuration: Configuration | null = null;
  private committed: Configuration | null = null;
  private progressCount = 0;
  private wasLost = false;
  /** What another node knew to be committed, where that is more than this one knows. */
  private heard: MembersNews | null = null;

  constructor(context: PeersContext) {
    this.context = context;
  }

  /** To be called whenever the core may have changed its mind about members. */
  update(): void {
    const { core, isLost } = this.context;
    const progressCount = core.leading?.progress.size ?? 0;
    const lost = isLost();
    const committed = configurationAsOf(core, core.committedConfigurationIndex);
    const isSame = core.configuration === this.configuration && committed === this.committed;
    if (isSame && progressCount === this.progressCount && lost === this.wasLost) return;
    this.configuration = core.configuration;
    this.committed = committed;
    this.progressCount = progressCount;
    this.wasLost = lost;
    this.link();
  }

  /** Tells `peer`, which may have been away, who the members are. */
  tellMembers(peer: NodeId): void {
    const { core, send } = this.context;
    const index = core.committedConfigurationIndex;
    if (index > 0) send(peer, { kind: 'membersNews', index, configuration: configurationAsOf(core, index) });
  }

  receive(news: MembersNews): void {
    if (news.index <= Math.max(this.context.core.committedConfigurationIndex, this.heard?.index ?? 0)) return;
    this.heard = news;
    this.link();
  }

  private link(): void {
    const { core, transport } = this.context;
    const wanted = this.wanted();
    // Who is told that it was removed ends, so that must not be taken back any more.
    const { removed } = configurationAsOf(core, core.committedConfigurationIndex);
    transport.setPeers(
      wanted,
      removed.filter((id) => !wanted.some((peer) => peer.id === id) || core.leading?.progress.has(id) === true),
    );
  }

  /** The members as others know them, while this node's own log does not reach so far. */
  private get ahead(): Configuration | null {
    const { heard } = this;
    return heard !== null && heard.index > this.context.core.committedConfigurationIndex ? heard.configuration : null;
  }

  private wanted(): PeerAddress[] {
    const { core, peerAddresses } = this.context;
    const ids = new Set<NodeId>(members(core.configuration));
    // A newcomer knows only the nodes of its configuration file.
    if (!ids.has(core.id) || this.wasLost) for (const { id } of peerAddresses) ids.add(id);
    for (const id of core.configuration.removed) ids.delete(id);
    if (this.ahead !== null) for (const id of members(this.ahead)) ids.add(id);
    // Who has just left is among the removed, and to be told so.
    for (const id of core.leading?.progress.keys() ?? []) ids.add(id);
    ids.delete(core.id);
    return [...ids].flatMap((id) => this.addressOf(id) ?? []);
  }

  private addressOf(id: NodeId): PeerAddress | null {
    const listed = this.context.peerAddresses.find((node) => node.id === id);
    if (listed !== undefined) return listed;
    const known = this.context.core.configurations.map(({ configuration }) => configuration).reverse();
    for (const configuration of this.ahead === null ? known : [this.ahead, ...known]) {
      const address = configuration.details.find((detail) => detail.id === id)?.address;
      if (address) return { id, host: address.host, port: address.peerPort };
    }
    return null;
  }
}
