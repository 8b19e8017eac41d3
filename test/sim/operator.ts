import { RaftkvError } from '../../src/base/errors.ts';
import type { Configuration, MemberChange, NodeId } from '../../src/raft/state/types.ts';
import type { NodeReplica } from '../../src/replica/loop/node-replica.ts';
import { NotLeaderError } from '../../src/replica/peers/member-requests.ts';
import type { Random } from '../support/random.ts';
import type { ClusterChecks } from './checks.ts';
import type { IntactDirectories } from './intact-directories.ts';
import { committedIn } from './member-checks.ts';
import type { Plan } from './plan.ts';
import { addressOf, type SimNode } from './processes.ts';
import type { World } from './world.ts';

/** How often the operator looks for files that are wrong, in election timeouts: operators do not hurry to what may heal itself. */
const FILES_TIMEOUTS = 5;
/** How often a learner is added instead where there is none to promote. */
const LEARNER_FIRST_SHARE = 0.75;
/** How often a request is passed to the leader that a node names, which may be out of date. */
const REDIRECTS_MAX = 3;

/**
 * Somebody who changes the members of a running cluster: at any node, at any time, but never so that the cluster could
 * not survive it. Most of what is asked for is refused at one time or another; what is agreed to must be committed.
 */
export class Operator {
  /** What became of requests, by kind. */
  readonly counts: Record<string, number> = {};
  readonly #world: World;
  readonly #plan: Plan;
  readonly #random: Random;
  readonly #nodes: readonly SimNode[];
  readonly #directories: IntactDirectories;
  readonly #checks: ClusterChecks;
  #over = false;

  constructor(
    world: World,
    plan: Plan,
    random: Random,
    nodes: readonly SimNode[],
    directories: IntactDirectories,
    checks: ClusterChecks,
  ) {
    this.#world = world;
    this.#plan = plan;
    this.#random = random;
    this.#nodes = nodes;
    this.#directories = directories;
    this.#checks = checks;
  }

  /** `happened` is called when the request is agreed to, here and below. */
  add(happened: () => void): void {
    this.#bringIn(() => 0, happened);
  }

  /** Until every machine there is has become a voter; to be called again and again. */
  addAll(): void {
    const known = this.#known();
    const absent = this.#nodes.find(({ id }) => known !== null && !known.details.some((detail) => detail.id === id));
    if (known === null || absent === undefined) return;
    absent.join(known.details.map(({ id }) => id));
    this.#ask({ op: 'add', id: absent.id, address: addressOf(absent.id), joins: true, replaces: 0 }, () => {});
  }

  replace(happened: () => void): void {
    this.#bringIn(({ voters }) => {
      const old = this.#random.pick(voters);
      return this.#directories.mayLoseVoter(old) ? old : null;
    }, happened);
  }

  remove(happened: () => void): void {
    const known = this.#known();
    if (known === null) return;
    const id = this.#random.pick(known.details).id;
    if (known.voters.includes(id) && !this.#directories.mayLoseVoter(id)) return;
    this.#ask({ op: 'remove', id }, happened);
  }

  promote(happened: () => void): void {
    const learners = this.#known()?.learners ?? [];
    if (learners.length === 0 && this.#random.chance(LEARNER_FIRST_SHARE)) {
      this.#bringIn(
        () => 0,
        (id) => this.#promoteLater(id, happened),
        false,
      );
      return;
    }
    const id = this.#random.pick([...learners, ...learners, this.#random.pick(this.#nodes).id]);
    this.#ask({ op: 'promote', id }, happened);
  }

  /** Asks until the learner is promoted: it has to catch up first, and other changes have to end. */
  #promoteLater(id: NodeId, happened: () => void): void {
    const delayMs = this.#random.between(1, 5) * this.#plan.timing.electionTimeoutMs;
    this.#world.after(delayMs, () => {
      if (this.#over || this.#known()?.learners.includes(id) !== true) return;
      this.#ask({ op: 'promote', id }, happened);
      this.#promoteLater(id, happened);
    });
  }

  /** A node that was removed is started again, by somebody who does not know. */
  startRemoved(happened: () => void): void {
    const ended = this.#nodes.filter(({ ended }) => ended);
    if (ended.length === 0) return;
    happened();
    this.#random.pick(ended).start();
  }

  /**
   * To be called when the fault phase is over. From then on, where a member says that its file is wrong, and no node is left
   * whom that lists, the file is put right; nothing else is done for it.
   */
  mindFiles(): void {
    this.#over = true;
    this.#world.after(FILES_TIMEOUTS * this.#plan.timing.electionTimeoutMs, () => {
      const members = this.#known()?.details.map(({ id }) => id) ?? [];
      for (const id of members) {
        const node = this.#nodes.find((each) => each.id === id);
        if (node === undefined || !this.#isLost(node, members)) continue;
        this.#count('fileCorrected');
        node.correctFile(members);
      }
      this.mindFiles();
    });
  }

  /** It says so, and neither its file nor its log names a member that is one by its own disk, or has been told who they are. */
  #isLost({ id, listed, running }: SimNode, members: readonly NodeId[]): boolean {
    if (running === null || !running.replica.status().healthProblem.includes('configuration file')) return false;
    const logged = running.replica.raft.core.configurations.current.details.map((detail) => detail.id);
    return !this.#nodes.some(({ id: other, core }) => {
      if (other === id || core === null || !members.includes(other)) return false;
      if (!listed.includes(other) && !logged.includes(other)) return false;
      return core.rights.lifecycle === 'normal' || core.configurations.committed.index > 0;
    });
  }

  backup(happened: () => void): void {
    const node = this.#random.pick(this.#nodes);
    const { incarnation, running } = node;
    if (incarnation === null || running === null || incarnation.paused) return;
    const committed = this.#checks.lastCommitted;
    this.#world.say(() => `${node.id}: is asked for a backup`);
    incarnation.call(() => {
      this.#readBackup(node, running.replica, committed).then(
        () => happened(),
        (error: unknown) => this.#refused('backup', error),
      );
    });
  }

  /** A newcomer, begun before the cluster hears of it, or after. It stays a learner unless it `joins`. */
  #bringIn(
    replacing: (known: Configuration) => NodeId | null,
    happened: (id: NodeId) => void,
    joins = this.#random.chance(0.6),
  ): void {
    const known = this.#known();
    const absent = this.#nodes.filter((node) => node.isSpare && (!node.begun || node.ended));
    if (known === null || absent.length === 0) return;
    const node = this.#random.pick(absent);
    const replaces = replacing(known);
    if (replaces === null || known.details.some(({ id }) => id === node.id)) return;
    const members = known.details.map(({ id }) => id);
    const { electionTimeoutMs } = this.#plan.timing;
    const begin = () => node.join(members);
    if (node.ended) {
      // At once: later the cluster may have come to count on what is there.
      node.wipe(members);
      begin();
    } else {
      this.#world.after(this.#random.pick([0, 0, electionTimeoutMs * 5]), begin);
    }
    const change = {
      op: 'add',
      id: node.id,
      address: addressOf(node.id),
      joins: joins || replaces !== 0,
      replaces,
    } as const;
    this.#ask(change, () => happened(node.id));
  }

  /** The newest configuration that any node knows to be committed. */
  #known(): Configuration | null {
    let newest: Configuration | null = null;
    let at = 0;
    for (const { running } of this.#nodes) {
      const core = running?.replica.raft.core;
      if (core === undefined || core.log.commitIndex <= at) continue;
      at = core.log.commitIndex;
      newest = committedIn(core);
    }
    return newest === null || newest.voters.length === 0 ? null : newest;
  }

  #ask(change: MemberChange, happened: () => void): void {
    const up = this.#nodes.filter(({ incarnation, running }) => running !== null && incarnation?.paused === false);
    const leaders = up.filter(({ core }) => core?.role === 'leader');
    const asked = this.#random.chance(0.5) ? leaders : up;
    if (asked.length === 0) return;
    this.#directories.pending.add(change);
    // A request without an answer may still be on its way.
    const { electionTimeoutMs, requestTimeoutMs } = this.#plan.timing;
    const forgetMs = requestTimeoutMs + 2 * this.#plan.network.silenceMs + 5 * electionTimeoutMs;
    this.#world.after(forgetMs, () => this.#directories.pending.delete(change));
    this.#askNode(this.#random.pick(asked), change, happened, REDIRECTS_MAX);
  }

  /** As `raftkv member` does: goes on to the leader that the node names. */
  #askNode({ id, incarnation, running }: SimNode, change: MemberChange, happened: () => void, redirects: number): void {
    if (incarnation === null || incarnation.paused || running === null) return;
    this.#world.say(() => `${id}: is asked to ${JSON.stringify(change)}`);
    incarnation.call(() => {
      running.replica.changeMembers(change).then(
        () => {
          happened();
          this.#agreed(change);
        },
        (error: unknown) => {
          const leader = error instanceof NotLeaderError ? this.#nodeOf(error.leader?.id) : undefined;
          if (leader === undefined || redirects === 0) this.#refused(change.op, error);
          else this.#world.after(0, () => this.#askNode(leader, change, happened, redirects - 1));
        },
      );
    });
  }

  #nodeOf(id: NodeId | undefined): SimNode | undefined {
    return this.#nodes.find((node) => node.id === id);
  }

  #agreed(change: MemberChange): void {
    this.#count(`${change.op} agreed`);
    this.#world.say(() => `agreed: ${JSON.stringify(change)}`);
    if (this.#checks.members.wasEver((configuration) => isDone(configuration, change))) return;
    this.#world.fail('members change by consensus', `not committed, though agreed to: ${JSON.stringify(change)}`);
  }

  #refused(what: string, error: unknown): void {
    const code = error instanceof RaftkvError ? error.code : 'none';
    const reason = /\(([A-Z_]+)\)$/.exec((error as Error).message)?.[1] ?? code;
    this.#count(`${what} ${reason}`);
    this.#world.say(() => `refused: ${what}: ${(error as Error).message}`);
    if (code === 'MEMBER_CHANGE_REFUSED' || code === 'NOT_LEADER' || code === 'BACKUP_INVALID') return;
    this.#world.fail('operators are answered', `${what}: ${(error as Error).stack}`);
  }

  async #readBackup({ id, disk }: SimNode, replica: NodeReplica, committed: number): Promise<void> {
    const { info, read, release } = await replica.backup();
    const pieces: Buffer[] = [];
    for (let at = 0; at < info.byteLength; ) {
      const piece = await read(at, 1000);
      pieces.push(piece);
      at += piece.length;
    }
    const isWhole = Buffer.concat(pieces).equals(disk.memory.contentOf(info.path));
    release();
    if (info.index < committed) {
      this.#world.fail('backups hold all', `node ${id} gives a backup of ${info.index}; committed was ${committed}`);
    }
    if (!isWhole) this.#world.fail('backups hold all', `node ${id} gives a backup that is not its file ${info.path}`);
  }

  #count(what: string): void {
    this.counts[what] = (this.counts[what] ?? 0) + 1;
  }
}

function isDone({ voters, learners }: Configuration, change: MemberChange): boolean {
  const { id } = change;
  switch (change.op) {
    case 'add':
      return voters.includes(id) || learners.includes(id);
    case 'remove':
      return !voters.includes(id) && !learners.includes(id);
    case 'promote':
      return voters.includes(id);
  }
}
