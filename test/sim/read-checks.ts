import type { Core, Leadership, PendingRead } from '../../src/raft/state/core.ts';
import type { Effects, Input, NodeId } from '../../src/raft/state/types.ts';
import { isQuorum, keyOf } from './durability.ts';
import type { World } from './world.ts';

/**
 * A read is confirmed by a quorum's answers to a round that began after it came. Which directory has answered which round, and
 * which has asked for which read, is kept here a second time, from the messages alone.
 */
interface Heard {
  /** The newest round that each directory, by node and directory id, has answered as one that counts. */
  readonly rounds: Map<string, number>;
  /** The directories whose request is an acknowledgement, by the `from id` of the read. */
  readonly readers: Map<string, Set<string>>;
}

export class ReadChecks {
  readonly #world: World;
  readonly #heard = new WeakMap<Leadership, Heard>();

  constructor(world: World) {
    this.#world = world;
  }

  /** To be called before each step. */
  hear(core: Core, input: Input): void {
    const { leading } = core;
    if (leading === null || input.kind !== 'receive' || input.message.term !== core.term) return;
    const { message } = input;
    if (message.kind === 'heartbeatReply' && !message.withoutRights) {
      const { rounds } = this.#of(leading);
      const directoryId = keyOf(message.from, message.directoryId);
      rounds.set(directoryId, Math.max(rounds.get(directoryId) ?? 0, message.round));
    } else if (message.kind === 'readIndex' && !message.withoutRights) {
      const { readers } = this.#of(leading);
      const name = nameOf(message.from, message.id);
      const directories = readers.get(name) ?? new Set();
      readers.set(name, directories.add(keyOf(message.from, message.directoryId)));
    }
  }

  #of(leading: Leadership): Heard {
    const known = this.#heard.get(leading);
    if (known !== undefined) return known;
    const heard: Heard = { rounds: new Map(), readers: new Map() };
    this.#heard.set(leading, heard);
    return heard;
  }

  /** `before` are the reads that waited before the step, each with its round as of then. */
  check(
    core: Core,
    input: Input,
    effects: Effects,
    roundBefore: number,
    before: ReadonlyMap<PendingRead, number>,
  ): void {
    const { leading, id } = core;
    if (leading === null) return;
    for (const read of leading.reads) {
      if (read.round !== 0 && read.round <= roundBefore && !before.has(read)) {
        this.#fail(`leader ${id} lets a read go by round ${read.round}, begun before`);
      }
    }
    const rounds = new Map<string, number>();
    for (const [{ from, id: read }, round] of before) {
      // Of a request that came twice, the first may be answered.
      const name = nameOf(from, read);
      rounds.set(name, Math.min(rounds.get(name) ?? round, round));
    }
    const confirmed = (from: NodeId, read: number) =>
      this.#checkConfirmed(core, leading, nameOf(from, read), rounds.get(nameOf(from, read)) ?? 0);
    // What an earlier leader has confirmed may come late.
    const isReply = input.kind === 'receive' && input.message.kind === 'readIndexReply';
    for (const { id: read } of isReply ? [] : effects.reads) confirmed(id, read);
    for (const messages of [effects.sendNow, effects.sendAfterPersist]) {
      for (const message of messages) {
        if (message.kind !== 'readIndexReply' || message.index < 0) continue;
        confirmed(message.to, message.id);
      }
    }
  }

  /** `round` is 0 where none was needed: then the leader and the reader alone must be a quorum. */
  #checkConfirmed({ id, rights, configurations }: Core, leading: Leadership, read: string, round: number): void {
    const configuration = configurations.current;
    const { directoryId } = rights;
    const { rounds, readers } = this.#of(leading);
    // The leader, the reader, whose request is an acknowledgement too, and all that answered the round or a later one.
    const agrees = (key: string) =>
      key === keyOf(id, directoryId) ||
      readers.get(read)?.has(key) === true ||
      (round > 0 && (rounds.get(key) ?? 0) >= round);
    if (isQuorum(configuration, agrees)) return;
    const keys = configuration.details.map((each) => keyOf(each.id, each.directoryId)).filter(agrees);
    this.#fail(`leader ${id} confirms a read by round ${round} with ${keys.join(', ')} only`);
  }

  #fail(message: string): void {
    this.#world.fail('reads wait for their round', message);
  }
}

/** Reads of two nodes may have the same id. */
function nameOf(from: NodeId, id: number): string {
  return `${from} ${id}`;
}
