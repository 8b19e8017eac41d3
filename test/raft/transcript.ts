import type { CoreSummary } from '../../src/raft/invariants.ts';
import type { Core } from '../../src/raft/state/core.ts';
import { sealEntry } from '../../src/raft/state/entry.ts';
import { type Effects, type MemberChange, type Message, NO_NODE, type NodeId } from '../../src/raft/state/types.ts';
import { truncatedFrom } from '../support/truncation.ts';
import { configurationWith } from './configurations.ts';
import { batchOf, type ClusterNode, type CoreCluster } from './core-cluster.ts';
import { describeConfiguration, describeEntries, describeEntry, describeMessage } from './describe.ts';
import { ELECTION_TIMEOUT_TICKS, smallCluster, stabilize, tick, votersOf } from './small-cluster.ts';

const ADDRESS = { host: 'new.example', clientPort: 1, peerPort: 2, adminPort: 3 };

/**
 * Scenarios as text. A block is a comment that says why, one or more commands, `----`, and what came of them up to the
 * next blank line. Nothing happens by itself: messages lie on the wire until delivered, writes on their way to the disk.
 *
 *   cluster N [learner=N] [newcomer=N] [append-bytes=N]   N voters, everything empty; one entry an append where bytes are few
 *   start N terms 1 1 2 [term=T]             the node starts with a log of entries of these terms
 *   campaign N                               the node loses patience
 *   tick N TIMES
 *   propose N TEXT                           the leader is asked to write
 *   read N          transfer N [TO]          asked for a read; asked to hand over
 *   deliver [FROM->TO] [KIND]                what is on the wire now arrives, not what comes of it; `*` for any node
 *   drop [FROM->TO] [KIND]                   what is on the wire is lost
 *   copy [FROM->TO] [KIND]                   a copy of what is on the wire stays behind, until `late` delivers it
 *   late
 *   ask-vote FROM->TO term=T                 a request for a vote in term T arrives, from any sender
 *   partition A B | C D   partition A->B   heal   from now on messages are lost between the sides, or in one direction
 *   persist N     complete N      disk N     writes become durable; the core hears of it; both
 *   stall N       unstall N                  the disk hangs, also in `stabilize`
 *   crash N       restart N                  what is not durable is lost; also starts a newcomer
 *   wipe N                                   the disk of a node that is down is lost, and a new directory begins
 *   add N NEW [joins] [replaces=N]    remove N OLD    promote N ID    the leader N is asked to change the members
 *   members                                  what each node takes the members to be, and its own lifecycle status
 *   link-lost N PEER    link-up N PEER
 *   snapshot N [UP-TO]                       the node takes a snapshot, and compacts its log up to an index
 *   fetch N                                  the snapshot that the node wants goes one step: it begins, is here, is told
 *   stalled N PEER                           the node hears nothing of the snapshot that the peer should fetch
 *   stabilize                                   everything arrives and is written until all is quiet; tells results only
 *   state         log N           wire       shows the nodes; one node's log; what is under way
 */
export class Transcript {
  private cluster: CoreCluster;
  private lines: string[] = [];
  /** Whether steps are told in full, or only what came of them. */
  private tellsAll = true;
  private copies: Message[] = [];
  private readonly stalled = new Set<NodeId>();

  constructor() {
    this.cluster = this.build(1, 0, 1000);
  }

  /** Carries out one command and gives what is to be shown of it. */
  run(line: string): string[] {
    this.lines = [];
    const [command = '', ...args] = line.trim().split(/\s+/);
    this.tellsAll = command !== 'stabilize' && command !== 'tick' && command !== 'campaign';
    const show = this.commands[command];
    if (show === undefined) throw new Error(`no such command: ${command}`);
    show(args);
    return this.lines;
  }

  private readonly commands: Record<string, (args: readonly string[]) => void> = {
    cluster: (args) => {
      const option = (name: string) => args.find((arg) => arg.startsWith(`${name}=`))?.split('=')[1];
      const [learner, newcomer] = ['learner', 'newcomer'].map((name) => Number(option(name) ?? 0));
      this.cluster = this.build(idOf(args[0]), learner ?? 0, Number(option('append-bytes') ?? 1000), newcomer);
    },
    start: (args) => this.start(args),
    campaign: ([id]) => this.campaign(idOf(id)),
    tick: ([id, times]) => tick(this.cluster, idOf(id), Number(times ?? 1)),
    propose: ([id, ...payloads]) => {
      if (!this.cluster.propose(idOf(id), ...payloads)) this.say('  rejects the proposal');
    },
    read: ([id]) => void this.cluster.read(idOf(id)),
    transfer: ([id, to]) => void this.cluster.step(idOf(id), { kind: 'transferLeadership', to: Number(to ?? NO_NODE) }),
    deliver: (args) => {
      for (const message of this.take(args)) this.cluster.step(message.to, { kind: 'receive', message });
    },
    drop: (args) => {
      for (const message of this.take(args)) this.say(`lost: ${describeMessage(message)}`);
    },
    copy: (args) => {
      const chosen = this.cluster.wire.filter(matcherOf(args));
      for (const message of chosen) this.say(`copied: ${describeMessage(message)}`);
      this.copies.push(...chosen);
    },
    late: () => {
      for (const message of this.copies.splice(0)) this.cluster.step(message.to, { kind: 'receive', message });
    },
    'ask-vote': ([direction = '', option = '']) => {
      const [from = 0, to = 0] = direction.split('->').map(Number);
      const { lastIndex, lastTerm } = this.cluster.node(from).core?.log ?? { lastIndex: 0, lastTerm: 0 };
      const term = Number(option.replace('term=', ''));
      const message: Message = { kind: 'vote', from, to, term, lastIndex, lastTerm, transfer: false };
      this.cluster.step(to, { kind: 'receive', message });
    },
    partition: (args) => this.partition(args.join(' ')),
    heal: () => this.cluster.partitions.clear(),
    persist: ([id]) => {
      while (this.cluster.persist(idOf(id)));
    },
    complete: ([id]) => {
      while (this.cluster.complete(idOf(id)));
    },
    disk: ([id]) => void this.cluster.flushDisk(idOf(id)),
    stall: ([id]) => void this.stalled.add(idOf(id)),
    unstall: ([id]) => void this.stalled.delete(idOf(id)),
    crash: ([id]) => this.cluster.crash(idOf(id)),
    restart: ([id]) => this.cluster.start(idOf(id)),
    wipe: ([id]) => this.cluster.wipe(idOf(id)),
    add: ([leader, id, ...rest]) => {
      const replaces = Number(rest.find((word) => word.startsWith('replaces='))?.split('=')[1] ?? 0);
      this.change(leader, { op: 'add', id: idOf(id), address: ADDRESS, joins: rest.includes('joins'), replaces });
    },
    remove: ([leader, id]) => this.change(leader, { op: 'remove', id: idOf(id) }),
    promote: ([leader, id]) => this.change(leader, { op: 'promote', id: idOf(id) }),
    members: () => {
      for (const { id, core } of this.cluster.nodes.values()) {
        if (core === null) this.say(`${id} is down`);
        else
          this.say(
            `${id} ${core.rights.lifecycle}${core.rights.isSuperseded ? ' without rights' : ''}: ${describeConfiguration(core.configurations.current)}`,
          );
      }
    },
    'link-lost': ([id, peer]) => void this.cluster.step(idOf(id), { kind: 'linkLost', peer: idOf(peer) }),
    'link-up': ([id, peer]) => void this.cluster.step(idOf(id), { kind: 'linkUp', peer: idOf(peer) }),
    snapshot: ([id, upTo]) => {
      this.cluster.apply(idOf(id));
      this.cluster.snapshot(idOf(id), Number(upTo ?? 0));
    },
    fetch: ([id]) => {
      if (!this.cluster.moveTransfer(idOf(id))) this.say('nothing to fetch');
    },
    stalled: ([id, peer]) => void this.cluster.step(idOf(id), { kind: 'snapshotStalled', peer: idOf(peer) }),
    stabilize: () =>
      stabilize(
        this.cluster,
        () => false,
        (id) => !this.stalled.has(id),
      ),
    state: () => {
      for (const node of this.cluster.nodes.values()) this.say(stateOf(node));
    },
    log: ([id]) => {
      const node = this.cluster.node(idOf(id));
      const { snapshotIndex = 0, lastIndex = 0 } = node.core?.log ?? {};
      const indexes = Array.from({ length: lastIndex - snapshotIndex }, (_, i) => snapshotIndex + i + 1);
      this.say(describeEntries(indexes.map((index) => this.cluster.entryAt(node, index))));
    },
    wire: () => {
      for (const message of this.cluster.wire) this.say(describeMessage(message));
    },
  };

  private build(voters: number, learner: NodeId, appendBytesMax: number, newcomer: NodeId = 0): CoreCluster {
    const configuration = configurationWith({
      voters: votersOf(voters).voters,
      learners: learner === 0 ? [] : [learner],
    });
    this.stalled.clear();
    this.copies = [];
    const tellsNothingYet = this.tellsAll;
    this.tellsAll = false;
    const cluster = smallCluster(configuration, {
      appendBytesMax,
      newcomers: newcomer === 0 ? [] : [newcomer],
      trace: (line) => {
        if (this.tellsAll) this.say(line);
      },
      observe: (core, before, effects) => this.tell(core, before, effects),
    });
    this.tellsAll = tellsNothingYet;
    return cluster;
  }

  private start([id, , ...rest]: readonly string[]): void {
    const terms = rest.filter((word) => !word.includes('=')).map(Number);
    const term = rest.find((word) => word.startsWith('term='))?.slice('term='.length) ?? String(terms.at(-1) ?? 0);
    const { disk } = this.cluster.node(idOf(id));
    this.tellsAll = false;
    this.cluster.crash(idOf(id));
    disk.entries.length = 0;
    for (const [i, entryTerm] of terms.entries()) {
      disk.entries.push(sealEntry(batchOf(`${i + 1}of${entryTerm}`), 'data', entryTerm, i + 1));
    }
    disk.hardState = { term: Number(term), vote: NO_NODE, commitIndex: 0 };
    this.cluster.start(idOf(id));
  }

  private change(leader: string | undefined, change: MemberChange): void {
    const outcome = this.cluster.change(idOf(leader), change);
    if (outcome !== undefined && outcome.refusal !== null) this.say(`  refused, ${outcome.refusal}: ${outcome.text}`);
  }

  private campaign(id: NodeId): void {
    const { core } = this.cluster.node(id);
    const before = core?.role;
    for (let i = 0; i < 2 * ELECTION_TIMEOUT_TICKS; i++) {
      tick(this.cluster, id);
      if (core?.role !== before || core?.timerStartedAt === core?.now) return;
    }
    throw new Error(`node ${id} did not campaign`);
  }

  private take(args: readonly string[]): Message[] {
    const matches = matcherOf(args);
    const taken = this.cluster.wire.filter(matches);
    this.cluster.wire = this.cluster.wire.filter((message) => !matches(message));
    return taken;
  }

  private partition(what: string): void {
    const [left = '', right] = what.split('|');
    if (right === undefined) {
      this.cluster.partitions.add(what);
      return;
    }
    const ids = (side: string) => side.trim().split(/\s+/);
    for (const a of ids(left)) for (const b of ids(right)) this.cluster.partitions.add(`${a}->${b}`).add(`${b}->${a}`);
  }

  /** What one step changed. */
  private tell(core: Core, before: CoreSummary, effects: Effects): void {
    const tell = (what: string) => this.say(this.tellsAll ? `  ${what}` : `${core.id} ${what}`);
    if (core.role !== before.role || (core.role !== 'follower' && core.term !== before.term)) {
      tell(`is now ${core.role} of term ${core.term}`);
    }
    const { hardState, append, reads, readsRejected } = effects;
    const truncated = truncatedFrom(before, effects);
    if (truncated !== 0) tell(`truncates its log from ${truncated} on`);
    if (this.tellsAll && hardState !== null) {
      tell(`writes term ${hardState.term}${hardState.vote === NO_NODE ? '' : `, vote for ${hardState.vote}`}`);
    }
    if (this.tellsAll) for (const entry of append) tell(`writes ${describeEntry(entry)}`);
    const { wantSnapshot, install } = effects;
    if (wantSnapshot !== null) tell(`wantSnapshot ${wantSnapshot.index}@${wantSnapshot.term}`);
    if (install !== null) {
      tell(`installs snapshot ${install.index}@${install.term}${install.resetLog ? ', its log begins there' : ''}`);
    }
    if (core.log.snapshotIndex !== before.snapshotIndex && install === null) {
      tell(`compacts its log up to ${core.log.snapshotIndex}`);
    }
    if (core.log.commitIndex !== before.commitIndex) tell(`commits up to ${core.log.commitIndex}`);
    for (const { id, index } of reads) tell(`may serve read ${id} once ${index} is applied`);
    for (const id of readsRejected) tell(`rejects read ${id}`);
    if (effects.configuration !== null) tell(`configuration in force: ${describeConfiguration(effects.configuration)}`);
    if (effects.recovered) tell('recovered: the committed configuration names its directory');
  }

  private say(line: string): void {
    this.lines.push(line);
  }
}

function stateOf({ id, core }: ClusterNode): string {
  if (core === null) return `${id} is down`;
  const { log } = core;
  const { snapshotIndex, lastIndex } = log;
  const count = lastIndex - snapshotIndex;
  const terms = Array.from({ length: count }, (_, i) => log.termAt(snapshotIndex + i + 1)).join(' ');
  const begin = snapshotIndex === 0 ? '' : ` after ${snapshotIndex}@${log.snapshotTerm}`;
  const leader = core.leader === NO_NODE ? 'none' : core.leader;
  return (
    `${id} ${core.role} of term ${core.term}, leader ${leader}, terms${begin} [${terms}]` +
    `, on disk ${log.persistedIndex}, committed ${log.commitIndex}`
  );
}

function idOf(word: string | undefined): NodeId {
  const id = Number(word);
  if (!Number.isInteger(id) || id < 1) throw new Error(`${word} is no node`);
  return id;
}

function matcherOf(args: readonly string[]): (message: Message) => boolean {
  const direction = args.find((arg) => arg.includes('->'));
  const kind = args.find((arg) => !arg.includes('->'));
  const [from = '*', to = '*'] = direction?.split('->') ?? [];
  const fits = (wanted: string, id: NodeId) => wanted === '*' || Number(wanted) === id;
  return (message) => fits(from, message.from) && fits(to, message.to) && (kind === undefined || message.kind === kind);
}
