import { beforeEach, describe, expect, it } from 'vitest';
import { configurationOf } from '../../../src/raft/state/configuration.ts';
import type { Core } from '../../../src/raft/state/core.ts';
import type { Configuration } from '../../../src/raft/state/types.ts';
import { Peers } from '../../../src/replica/peers/peers.ts';
import type { PeerMessage } from '../../../src/replica/peers/wire.ts';
import type { PeerAddress } from '../../../src/transport/types.ts';
import { addressOf } from '../cluster.ts';
import { coreOf } from '../cores.ts';

const detail = (id: number) => ({ id, address: addressOf(id), directoryId: 0, joins: false, replaces: 0 });
const of = (ids: number[], changes: Partial<Configuration> = {}): Configuration => ({
  ...configurationOf(ids, ids.map(detail)),
  ...changes,
});
const addressesOf = (...ids: number[]): PeerAddress[] => ids.map((id) => ({ id, host: 'listed', port: id }));

describe('whom a node keeps links with', () => {
  let told: { peers: readonly PeerAddress[]; removed: readonly number[] }[];

  let said: { to: number; news: PeerMessage }[];

  beforeEach(() => {
    told = [];
    said = [];
  });

  function peersOf(core: Core, listed: PeerAddress[]): Peers {
    const transport = {
      setPeers: (peers: readonly PeerAddress[], removed: readonly number[]) => told.push({ peers, removed }),
    };
    const sender = {
      tell(to: number, news: PeerMessage) {
        said.push({ to, news });
        return true;
      },
    };
    const peers = new Peers({ transport, peerAddresses: listed }, core, sender);
    peers.update(false);
    return peers;
  }

  /** A configuration comes into force, committed or not. */
  function adopt(core: Core, configuration: Configuration, { committed = true } = {}): void {
    const index = core.configurations.newest.index + 1;
    core.configurations.append(index, configuration);
    if (committed) core.configurations.commit(index);
  }

  const ids = () =>
    told
      .at(-1)
      ?.peers.map(({ id }) => id)
      .sort();

  it('are the other members, where the file says, or else the log', () => {
    peersOf(coreOf(2, { configuration: of([1, 2, 3]) }), addressesOf(1));
    expect(told).toEqual([
      {
        peers: [
          { id: 1, host: 'listed', port: 1 },
          { id: 3, host: '127.0.0.1', port: addressOf(3).peerPort },
        ],
        removed: [],
      },
    ]);
  });

  it('are told to the transport only when they change', () => {
    const core = coreOf(2, { configuration: of([1, 2, 3]) });
    const peers = peersOf(core, addressesOf(1, 3));
    peers.update(false);
    expect(told).toHaveLength(1);
    adopt(core, of([1, 2, 3, 4]));
    peers.update(false);
    peers.update(false);
    expect(told).toHaveLength(2);
    expect(ids()).toEqual([1, 3, 4]);
  });

  it('are for a newcomer those that its file names', () => {
    peersOf(coreOf(4, { configuration: configurationOf([]), lifecycle: 'recovering' }), addressesOf(1, 2, 4));
    expect(ids()).toEqual([1, 2]);
  });

  it('are no longer those of the file once the node is a member: what the log says counts', () => {
    peersOf(coreOf(1, { configuration: of([1, 2]) }), addressesOf(1, 2, 3));
    expect(ids()).toEqual([2]);
  });

  it('are those of the file, too, while no leader is heard of for long: the others may have been replaced', () => {
    const core = coreOf(1, { configuration: of([1, 2], { removed: [3] }) });
    const peers = peersOf(core, addressesOf(1, 2, 3, 4));
    peers.update(true);
    expect(ids()).toEqual([2, 4]);
    peers.update(false);
    expect(ids()).toEqual([2]);
  });

  it('are not who was removed, also where the file of a newcomer still lists it', () => {
    peersOf(coreOf(4, { configuration: of([1, 2], { removed: [3] }), lifecycle: 'recovering' }), addressesOf(1, 2, 3));
    expect(ids()).toEqual([1, 2]);
    expect(told.at(-1)?.removed).toEqual([3]);
  });

  it('tell no node that it was removed before that is certain', () => {
    const core = coreOf(1, { configuration: of([1, 2, 3]) });
    const peers = peersOf(core, addressesOf(1, 2, 3));
    adopt(core, of([1, 2], { removed: [3] }), { committed: false });
    peers.update(false);
    expect([ids(), told.at(-1)?.removed]).toEqual([[2, 3], []]);
    core.configurations.commit(core.configurations.newest.index);
    peers.update(false);
    expect([ids(), told.at(-1)?.removed]).toEqual([[2], [3]]);
  });

  it('include a removed node again as soon as an entry adds it, committed or not', () => {
    const core = coreOf(1, { configuration: of([1, 2], { removed: [3] }) });
    const peers = peersOf(core, addressesOf(1, 2, 3));
    expect([ids(), told.at(-1)?.removed]).toEqual([[2], [3]]);
    adopt(core, of([1, 2], { learners: [3], details: [1, 2, 3].map(detail) }), { committed: false });
    peers.update(false);
    expect([ids(), told.at(-1)?.removed]).toEqual([[2, 3], []]);
  });

  it('are reached at the address of an older configuration while their removal is not committed', () => {
    const core = coreOf(1, { configuration: of([1, 2, 3]) });
    adopt(core, of([1, 2], { removed: [3] }), { committed: false });
    peersOf(core, addressesOf(2));
    expect(told.at(-1)?.peers).toContainEqual({ id: 3, host: '127.0.0.1', port: addressOf(3).peerPort });
  });

  it('are also those that another node says are members now, until this one knows better', () => {
    const core = coreOf(1, { configuration: of([1, 2, 3]) });
    const peers = peersOf(core, addressesOf(1, 2, 3));
    peers.receive({ kind: 'membersNews', index: 5, configuration: of([1, 4, 5]) });
    expect(ids()).toEqual([2, 3, 4, 5]);
    expect(told.at(-1)?.peers).toContainEqual({ id: 4, host: '127.0.0.1', port: addressOf(4).peerPort });
    // Older news, and the same again, change nothing.
    const changes = told.length;
    peers.receive({ kind: 'membersNews', index: 4, configuration: of([1, 9]) });
    peers.receive({ kind: 'membersNews', index: 5, configuration: of([1, 4, 5]) });
    expect(told).toHaveLength(changes);
    core.configurations.append(6, of([1, 4]));
    core.configurations.commit(6);
    peers.update(false);
    expect(ids()).toEqual([4]);
    peers.receive({ kind: 'membersNews', index: 6, configuration: of([1, 9]) });
    expect(ids()).toEqual([4]);
  });

  it('hear who the members are, as far as that is certain and not what all began with', () => {
    const core = coreOf(1, { configuration: of([1, 2, 3]) });
    const peers = peersOf(core, addressesOf());
    peers.tellMembers(2);
    adopt(core, of([1, 2, 3, 4]));
    adopt(core, of([1, 2]), { committed: false });
    peers.tellMembers(3);
    expect(said).toEqual([{ to: 3, news: { kind: 'membersNews', index: 1, configuration: of([1, 2, 3, 4]) } }]);
  });
});
