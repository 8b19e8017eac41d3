import { decodeConfiguration } from '../../src/raft/state/configuration.ts';
import type { Core, Leadership } from '../../src/raft/state/core.ts';
import { ENTRY_HEADER_BYTES } from '../../src/raft/state/entry.ts';
import type { Configuration, Effects, Entry, Input, Message, NodeId } from '../../src/raft/state/types.ts';
import type { MemoryDisk } from '../support/memory-disk.ts';
import type { World } from './world.ts';

/**
 * What must be true of members: the configuration in force is the newest in the log, changes go through joint
 * configurations one at a time, and a directory that no committed configuration names neither votes nor counts.
 */
interface SeenConfiguration {
  readonly configuration: Configuration;
  readonly term: number;
}

/** A catch-up phase takes less than one; the phases are looked at with heartbeats, and answers take their time. */
const CAUGHT_UP_TIMEOUTS = 3;

/** Of every node, on the disk of its own machine. */
const META_PATH = '/data/node/meta';

export class MemberChecks {
  /** Configuration entries that a leader has appended. */
  changes = 0;
  /** Directories that earned their rights. */
  recoveries = 0;
  readonly #world: World;
  readonly #initialMembers: readonly NodeId[];
  readonly #committedTermAt: (index: number) => number | undefined;
  /** By index, ascending; each with those of all terms. */
  readonly #indexes: number[] = [];
  readonly #seen = new Map<number, SeenConfiguration[]>();
  /** How the log of each leadership grew. */
  readonly #lengths = new WeakMap<Leadership, { readonly tick: number; readonly lastIndex: number }[]>();

  constructor(world: World, initialMembers: readonly NodeId[], committedTermAt: (index: number) => number | undefined) {
    this.#world = world;
    this.#initialMembers = initialMembers;
    this.#committedTermAt = committedTermAt;
  }

  /** `withoutRights` is what `isWithoutRights` said before the step. */
  stepped(core: Core, effects: Effects, withoutRights: boolean): void {
    for (const entry of effects.append) if (entry.kind === 'configuration') this.#appended(core, entry);
    this.#recordLength(core);
    this.checkInForce(core);
    if (withoutRights && isWithoutRights(core)) this.#checkWithoutRights(core, effects);
    if (effects.recovered) this.#checkRecovered(core);
  }

  checkInForce(core: Core): void {
    const expected = this.#newestIn(core);
    const actual = textOf(core.configurations.current);
    if (expected !== null ? textOf(expected) === actual : this.#isInitial(core.configurations.current)) return;
    // Its configuration file may say something else; it decides nothing by that.
    if (expected === null && core.rights.lifecycle !== 'normal') return;
    const should = expected === null ? 'none' : textOf(expected);
    this.#fail(`node ${core.id} goes by ${actual}; the newest configuration in its log is ${should}`);
  }

  #isInitial({ voters, votersOutgoing, learners }: Configuration): boolean {
    const isInitial =
      voters.length === this.#initialMembers.length && this.#initialMembers.every((id) => voters.includes(id));
    return (voters.length === 0 || isInitial) && votersOutgoing.length + learners.length === 0;
  }

  /** The newest that the log holds, or that a snapshot in its place stands for; null where that is the first. */
  #newestIn({ log }: Core): Configuration | null {
    for (let i = this.#indexes.length - 1; i >= 0; i--) {
      const index = this.#indexes[i] as number;
      if (index > log.lastIndex) continue;
      const term = index >= log.snapshotIndex ? log.termAt(index) : this.#committedTermAt(index);
      const found = this.#seen.get(index)?.find((seen) => seen.term === term);
      if (found !== undefined) return found.configuration;
    }
    return null;
  }

  /** Entries that come with a start or from a leader have been seen before, when that leader made them. */
  #appended(core: Core, { index, term, bytes }: Entry): void {
    const known = this.#seen.get(index) ?? [];
    if (known.some((seen) => seen.term === term)) return;
    if (known.length === 0) {
      this.#seen.set(index, known);
      this.#indexes.push(index);
      this.#indexes.sort((a, b) => a - b);
    }
    const configuration = decodeConfiguration(bytes, ENTRY_HEADER_BYTES);
    const before = core.configurations.entries.findLast((each) => each.index < index);
    if (before !== undefined) this.#checkPromoted(core, before.configuration, configuration);
    known.push({ configuration, term });
    this.changes++;
    this.#world.say(() => `${core.id}: entry ${index} makes the configuration ${textOf(configuration)}`);
    if (core.log.termAt(core.log.commitIndex) !== core.term) {
      this.#fail(`leader ${core.id} changes members before anything of its term ${core.term} is committed`);
    }
    if (before === undefined) return;
    if (before.index > core.log.commitIndex) {
      this.#fail(`leader ${core.id} changes members in entry ${index} while entry ${before.index} is not committed`);
    }
    const why = wrongStep(before.configuration, configuration);
    if (why !== '') this.#fail(`${textOf(before.configuration)} is followed by ${textOf(configuration)}: ${why}`);
  }

  /** Who becomes a voter had caught up: what it lacks was written within the last few election timeouts (§4.2.1). */
  #checkPromoted(core: Core, before: Configuration, after: Configuration): void {
    const { leading, id } = core;
    for (const voter of after.voters) {
      if (leading === null || voter === id || !before.learners.includes(voter)) continue;
      const progress = leading.progress.get(voter);
      const wanted = this.#lastIndexOf(core, CAUGHT_UP_TIMEOUTS * core.options.electionTimeoutTicks);
      if (progress?.hasRights === true && progress.matchIndex >= wanted) continue;
      const has = `it has ${progress?.matchIndex}, where the log had ${wanted} for long; has rights: ${progress?.hasRights}`;
      this.#fail(`leader ${id} promotes node ${voter}, which has not caught up: ${has}`);
    }
  }

  /** How far the log of a leader reached so many ticks ago; 0 where it did not lead. */
  #lastIndexOf({ leading, now }: Core, ticksAgo: number): number {
    if (leading === null) return 0;
    const at = (this.#lengths.get(leading) ?? []).findLast(({ tick }) => tick <= now - ticksAgo);
    return at?.lastIndex ?? 0;
  }

  #recordLength({ leading, log, now }: Core): void {
    if (leading === null) return;
    const lengths = this.#lengths.get(leading) ?? [];
    this.#lengths.set(leading, lengths);
    if (lengths.at(-1)?.lastIndex !== log.lastIndex) lengths.push({ tick: now, lastIndex: log.lastIndex });
  }

  /** Whether a committed configuration, joint or not, has ever been like this. */
  wasEver(isSuch: (configuration: Configuration) => boolean): boolean {
    return this.#committed().some(isSuch);
  }

  /** The newest that was committed anywhere; null where that is the first. */
  get newestCommitted(): Configuration | null {
    return this.#committed().at(-1) ?? null;
  }

  #committed(): readonly Configuration[] {
    return this.#indexes.flatMap((index) => {
      const term = this.#committedTermAt(index);
      return this.#seen.get(index)?.find((seen) => seen.term === term)?.configuration ?? [];
    });
  }

  /** A process that ends because it was removed must have been. */
  checkEnded(id: NodeId): void {
    const newest = this.newestCommitted;
    if (newest !== null && !newest.details.some((detail) => detail.id === id)) return;
    this.#fail(`node ${id} ends as removed, and is a member`);
  }

  /** What a node says that it is must be on its disk by then. */
  checkNoted({ id, rights }: Core, durable: MemoryDisk): void {
    const { lifecycle, directoryId } = rights;
    const meta = durable.paths().find((path) => path === META_PATH);
    const text = meta === undefined ? 'nothing' : durable.contentOf(meta).toString('latin1');
    if (text.includes(`"lifecycle":"${lifecycle}","directoryId":${directoryId}`)) return;
    this.#fail(`node ${id} takes itself for ${lifecycle}, directory ${directoryId}; its disk says: ${text}`);
  }

  /** What a leader knows of another directory's log commits nothing in this one. */
  checkHeartbeat({ id, rights, log }: Core, input: Input, committedBefore: number): void {
    const { directoryId } = rights;
    if (input.kind !== 'receive' || input.message.kind !== 'heartbeat' || input.message.directoryId === directoryId)
      return;
    if (log.commitIndex === committedBefore) return;
    this.#fail(
      `node ${id} commits entry ${log.commitIndex} by a heartbeat for its directory ${input.message.directoryId}`,
    );
  }

  #checkWithoutRights(core: Core, effects: Effects): void {
    if (core.role !== 'follower')
      this.#fail(`node ${core.id} has no vote (${core.rights.lifecycle}) and is ${core.role}`);
    for (const message of [...effects.sendNow, ...effects.sendAfterPersist]) {
      if (claimsRights(message)) {
        this.#fail(`node ${core.id} has no vote (${core.rights.lifecycle}) and says ${JSON.stringify(message)}`);
      }
    }
  }

  #checkRecovered(core: Core): void {
    this.recoveries++;
    const detail = committedIn(core).details.find(({ id }) => id === core.id);
    if (detail?.directoryId === core.rights.directoryId) return;
    this.#fail(
      `node ${core.id} takes its directory ${core.rights.directoryId} for a member's; committed is ${detail?.directoryId ?? 'none'}`,
    );
  }

  #fail(message: string): void {
    this.#world.fail('members change by consensus', message);
  }
}

/** The newest configuration that a core knows to be committed. */
export function committedIn({ configurations, log }: Core): Configuration {
  const committed = configurations.entries.findLast(({ index }) => index <= log.commitIndex);
  return committed?.configuration ?? configurations.current;
}

/** It may have forgotten what it promised, or its rights have passed to another directory. */
export function isWithoutRights(core: Core): boolean {
  if (core.rights.lifecycle !== 'normal') return true;
  // A start knows little of what is committed; but what names this directory once was.
  const inForce = [committedIn(core), ...core.configurations.entries.map(({ configuration }) => configuration)];
  const own = inForce.map(({ details }) => details.find(({ id }) => id === core.id));
  return own[0] !== undefined && !own.some((detail) => detail?.directoryId === core.rights.directoryId);
}

function claimsRights(message: Message): boolean {
  switch (message.kind) {
    case 'preVote':
    case 'vote':
      return true;
    case 'preVoteReply':
    case 'voteReply':
      return message.granted;
    case 'appendReply':
      return message.success && !message.withoutRights;
    case 'heartbeatReply':
    case 'readIndex':
      return !message.withoutRights;
    default:
      return false;
  }
}

/** What is wrong with going from one configuration to the next (§4.3); empty where nothing is. */
function wrongStep(before: Configuration, after: Configuration): string {
  if (before.votersOutgoing.length > 0) {
    if (after.votersOutgoing.length > 0) return 'a joint configuration is followed by another';
    return isSame(before.voters, after.voters) ? '' : 'leaving it changes its voters';
  }
  if (after.votersOutgoing.length > 0) {
    return isSame(before.voters, after.votersOutgoing) ? '' : 'it does not ask the voters that were';
  }
  return isSame(before.voters, after.voters) ? '' : 'voters change without both halves being asked';
}

function isSame(a: readonly NodeId[], b: readonly NodeId[]): boolean {
  return a.length === b.length && a.every((id) => b.includes(id));
}

const texts = new WeakMap<Configuration, string>();

/** The same for configurations that mean the same. */
function textOf(configuration: Configuration): string {
  const known = texts.get(configuration);
  if (known !== undefined) return known;
  const { voters, votersOutgoing, learners, learnersNext, autoLeave, details } = configuration;
  const sorted = (ids: readonly NodeId[]) => [...ids].sort((a, b) => a - b).join(',');
  const groups = [voters, votersOutgoing, learners, learnersNext].map(sorted).join('/');
  const directories = details.map(
    ({ id, directoryId, joins, replaces }) => `${id}:${directoryId}${joins ? '+' : ''}${replaces || ''}`,
  );
  const text = `[${groups}${autoLeave ? ' auto' : ''} ${directories.sort().join(' ')}]`;
  texts.set(configuration, text);
  return text;
}
