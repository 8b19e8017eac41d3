import { type Core, members } from '../raft/core.ts';
import { configurationAt } from '../raft/membership.ts';
import type { Configuration, NodeId } from '../raft/types.ts';
import type { PeerAddress, Transport } from '../transport/types.ts';

/**
 * Whom this node keeps links with: the members of the configuration in force, and who has just left it, until told so.
 * `cluster.json` says where the nodes are that it lists; where the others are is in the log.
 */
export interface PeersContext {
  readonly core: Core;
  readonly transport: Pick<Transport, 'setPeers'>;
  /** The nodes that `cluster.json` lists. */
  readonly book: readonly PeerAddress[];
}

export class Peers {
  private readonly context: PeersContext;
  private configuration: Configuration | null = null;
  private committed: Configuration | null = null;
  private progressCount = 0;

  constructor(context: PeersContext) {
    this.context = context;
  }

  /** To be called whenever the core may have changed its mind about members. */
  update(): void {
    const { core, transport } = this.context;
    const progressCount = core.leading?.progress.size ?? 0;
    const committed = configurationAt(core, core.committedConfigurationIndex);
    const isSame = core.configuration === this.configuration && committed === this.committed;
    if (isSame && progressCount === this.progressCount) return;
    this.configuration = core.configuration;
    this.committed = committed;
    this.progressCount = progressCount;
    // Who is told that it was removed ends, so that must not be taken back any more.
    transport.setPeers(this.wanted(), committed.removed);
  }

  private wanted(): PeerAddress[] {
    const { core, book } = this.context;
    const ids = new Set<NodeId>(members(core.configuration));
    // A newcomer knows nobody yet but those that its file names.
    if (!ids.has(core.id)) for (const { id } of book) ids.add(id);
    for (const id of core.configuration.removed) ids.delete(id);
    // Who has just left is among the removed, and to be told so.
    for (const id of core.leading?.progress.keys() ?? []) ids.add(id);
    ids.delete(core.id);
    return [...ids].flatMap((id) => this.addressOf(id) ?? []);
  }

  private addressOf(id: NodeId): PeerAddress | null {
    const listed = this.context.book.find((node) => node.id === id);
    if (listed !== undefined) return listed;
    for (const { configuration } of [...this.context.core.configurations].reverse()) {
      const address = configuration.details.find((detail) => detail.id === id)?.address;
      if (address) return { id, host: address.host, port: address.peerPort };
    }
    return null;
  }
}
