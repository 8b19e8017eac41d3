import { RaftkvError } from '../../base/errors.ts';
import {
  type ClusterId,
  type Configuration,
  type MemberDetail,
  NO_CLUSTER,
  type NodeAddress,
  type NodeId,
} from './types.ts';

/**
 * Configurations as plain values: how one becomes the next (joint consensus, §4.3), and their bytes in the log.
 *
 *   simple: at most one voter changes ──────────────────────────▶ the next configuration
 *   enterJoint: any change ──▶ old and new together ── leaveJoint ──▶ the next configuration
 */

/** More members than anybody runs, few enough that a configuration stays small and every leader can serve them. */
export const MEMBERS_MAX = 64;
/** How many removed members are remembered, so that they can be told when they come back; the oldest go first. */
const REMOVED_MAX = 64;
/** Bounds what is parsed: many times what `MEMBERS_MAX` members with long host names take. */
const CONFIGURATION_BYTES_MAX = 256 * 1024;
const HOST_LENGTH_MAX = 255;
/** Empty in the histories that only tests and other systems' test cases have. */
const CLUSTER_ID = /^([0-9a-f]{32})?$/;
/** A directory id is a random number of 48 bits. */
const DIRECTORY_ID_MAX = 2 ** 48 - 1;
/** Of a member that was just added: it has not told its directory id yet. */
export const DIRECTORY_UNKNOWN = DIRECTORY_ID_MAX;
/** Differs from every directory id: no directory. */
export const NO_DIRECTORY = -1;
const PORT_MAX = 65_535;

/**
 * What one step of a change does with one member. Steps take effect in order. Two things exist only because etcd's tables
 * of test cases (test/conformance) use them: `update` changes nothing, and id 0 is ignored.
 */
export interface ConfigurationStep {
  readonly op: 'voter' | 'learner' | 'remove' | 'update';
  readonly id: NodeId;
}

/** Voters alone, as a cluster begins. Details that are not given are those of directory id 0 at an unknown address. */
export function configurationOf(
  voters: readonly NodeId[],
  details: readonly MemberDetail[] = [],
  clusterId: ClusterId = NO_CLUSTER,
): Configuration {
  return build(new Draft({ ...EMPTY_CONFIGURATION, clusterId, details, voters }));
}

/** No members: the initial configuration of a newcomer, which learns the members from the leader. */
export const EMPTY_CONFIGURATION: Configuration = {
  clusterId: NO_CLUSTER,
  voters: [],
  votersOutgoing: [],
  learners: [],
  learnersNext: [],
  autoLeave: false,
  details: [],
  removed: [],
};

export function isJoint(configuration: Configuration): boolean {
  return configuration.votersOutgoing.length > 0;
}

/** Every member: voters of both configurations, then learners. */
export function members(configuration: Configuration): NodeId[] {
  return [...new Set([...configuration.voters, ...configuration.votersOutgoing, ...configuration.learners])];
}

export function isMember(configuration: Configuration, id: NodeId): boolean {
  return isVoter(configuration, id) || configuration.learners.includes(id);
}

/** Whether `id` is a voter now: of the configuration, or of either half of a joint one. */
export function isVoter(configuration: Configuration, id: NodeId): boolean {
  return configuration.voters.includes(id) || configuration.votersOutgoing.includes(id);
}

export function detailOf(configuration: Configuration, id: NodeId): MemberDetail | undefined {
  return configuration.details.find((detail) => detail.id === id);
}

/** The same configuration with another detail for a member that it has. */
export function withDetail(configuration: Configuration, detail: MemberDetail): Configuration {
  return { ...configuration, details: configuration.details.map((each) => (each.id === detail.id ? detail : each)) };
}

/**
 * A change of at most one voter, in one step: any majority of the old voters and any of the new ones have a member in
 * common (§4.1). This code only adds and removes learners with it; voters change by `enterJoint`, which allows any change.
 * @throws RaftkvError MEMBER_CHANGE_REFUSED
 */
export function simple(configuration: Configuration, steps: readonly ConfigurationStep[]): Configuration {
  if (isJoint(configuration)) throw refused("can't apply simple config change in joint config");
  const draft = new Draft(configuration);
  draft.apply(steps);
  const before = new Set(configuration.voters);
  const added = [...draft.voters].filter((id) => !before.has(id)).length;
  const gone = configuration.voters.filter((id) => !draft.voters.has(id)).length;
  if (added + gone > 1) throw refused('more than one voter changed without entering joint config');
  return build(draft);
}

/**
 * Begins any change: until it is left, a majority of the new voters and one of the old ones must agree (§4.3). If the
 * voters 1, 2, 3 became 3, 4, 5 in one step, nodes 1 and 2, which have not heard of it, could elect one leader, and nodes 4
 * and 5 another.
 * @throws RaftkvError MEMBER_CHANGE_REFUSED
 */
export function enterJoint(
  configuration: Configuration,
  steps: readonly ConfigurationStep[],
  autoLeave: boolean,
): Configuration {
  if (isJoint(configuration)) throw refused('config is already joint');
  if (configuration.voters.length === 0) throw refused("can't make a zero-voter config joint");
  const draft = new Draft(configuration);
  for (const id of draft.voters) draft.outgoing.add(id);
  draft.apply(steps);
  draft.autoLeave = autoLeave;
  return build(draft);
}

/**
 * The new half of a joint configuration alone.
 * @throws RaftkvError MEMBER_CHANGE_REFUSED
 */
export function leaveJoint(configuration: Configuration): Configuration {
  if (!isJoint(configuration)) throw refused("can't leave a non-joint config");
  const draft = new Draft(configuration);
  for (const id of draft.learnersNext) draft.learners.add(id);
  draft.learnersNext.clear();
  draft.outgoing.clear();
  draft.autoLeave = false;
  return build(draft);
}

/** A configuration while it is changed: sets, so that each step is one operation. `build` turns it into a value again. */
class Draft {
  readonly before: Configuration;
  readonly voters: Set<NodeId>;
  readonly outgoing: Set<NodeId>;
  readonly learners: Set<NodeId>;
  readonly learnersNext: Set<NodeId>;
  autoLeave: boolean;

  constructor(before: Configuration) {
    this.before = before;
    this.voters = new Set(before.voters);
    this.outgoing = new Set(before.votersOutgoing);
    this.learners = new Set(before.learners);
    this.learnersNext = new Set(before.learnersNext);
    this.autoLeave = before.autoLeave;
  }

  apply(steps: readonly ConfigurationStep[]): void {
    for (const { op, id } of steps) {
      if (id === 0) continue;
      switch (op) {
        case 'voter':
          this.#makeVoter(id);
          break;
        case 'learner':
          this.#makeLearner(id);
          break;
        case 'remove':
          this.#remove(id);
          break;
        case 'update':
          break;
      }
    }
    if (this.voters.size === 0) throw refused('removed all voters');
  }

  #makeVoter(id: NodeId): void {
    this.#remove(id);
    this.voters.add(id);
  }

  /** An outgoing voter stays one until the joint configuration is left, and is a learner only then. */
  #makeLearner(id: NodeId): void {
    this.#remove(id);
    if (this.outgoing.has(id)) this.learnersNext.add(id);
    else this.learners.add(id);
  }

  #remove(id: NodeId): void {
    this.voters.delete(id);
    this.learners.delete(id);
    this.learnersNext.delete(id);
  }
}

function build(draft: Draft): Configuration {
  const { before } = draft;
  const ids = new Set([...draft.voters, ...draft.outgoing, ...draft.learners]);
  const known = new Map(before.details.map((detail) => [detail.id, detail]));
  const removed = [...before.removed, ...members(before).filter((id) => !ids.has(id))].filter((id) => !ids.has(id));
  return {
    clusterId: before.clusterId,
    voters: ascending(draft.voters),
    votersOutgoing: ascending(draft.outgoing),
    learners: ascending(draft.learners),
    learnersNext: ascending(draft.learnersNext),
    autoLeave: draft.autoLeave,
    details: ascending(ids).map(
      (id) => known.get(id) ?? { id, address: null, directoryId: 0, joins: false, replaces: 0 },
    ),
    removed: removed.slice(-REMOVED_MAX),
  };
}

function ascending(ids: Iterable<NodeId>): NodeId[] {
  return [...ids].sort((a, b) => a - b);
}

function refused(message: string): RaftkvError {
  return new RaftkvError('MEMBER_CHANGE_REFUSED', message);
}

/** As JSON, after `headroomBytes` that are left free for the caller's header. */
export function encodeConfiguration(configuration: Configuration, headroomBytes: number): Buffer {
  const text = JSON.stringify(configuration);
  const bytes = Buffer.alloc(headroomBytes + Buffer.byteLength(text));
  bytes.write(text, headroomBytes);
  return bytes;
}

/**
 * Reads what `encodeConfiguration` wrote, from `offset` to the end.
 * @throws RaftkvError MESSAGE_INVALID where it is no configuration that this program would write.
 */
export function decodeConfiguration(bytes: Buffer, offset: number): Configuration {
  if (bytes.length - offset > CONFIGURATION_BYTES_MAX) throw invalid('is too long');
  let raw: unknown;
  try {
    raw = JSON.parse(bytes.toString('utf8', offset));
  } catch {
    throw invalid('is no JSON');
  }
  const object = objectOf(raw);
  const configuration: Configuration = {
    clusterId: clusterIdFrom(object['clusterId']),
    voters: idsOf(object['voters'], true),
    votersOutgoing: idsOf(object['votersOutgoing'], true),
    learners: idsOf(object['learners'], true),
    learnersNext: idsOf(object['learnersNext'], true),
    autoLeave: object['autoLeave'] === true,
    details: arrayOf(object['details']).map(detailFrom),
    removed: idsOf(object['removed'], false),
  };
  checkShape(configuration);
  return configuration;
}

function checkShape(configuration: Configuration): void {
  const { voters, votersOutgoing, learners, learnersNext, autoLeave, details, removed } = configuration;
  const all = ascending(members(configuration));
  if (voters.length === 0) throw invalid('has no voters');
  if (learners.some((id) => isVoter(configuration, id))) throw invalid('has a voter that is a learner');
  if (learnersNext.some((id) => voters.includes(id) || !votersOutgoing.includes(id))) {
    throw invalid('has a learner to be that is no outgoing voter');
  }
  if (autoLeave && !isJoint(configuration)) throw invalid('is to be left but is not joint');
  if (details.length !== all.length || details.some(({ id }, i) => id !== all[i])) {
    throw invalid('does not describe each of its members once');
  }
  if (removed.some((id) => all.includes(id))) throw invalid('has a member that was removed');
}

function detailFrom(raw: unknown): MemberDetail {
  const { id, address, directoryId, joins, replaces } = objectOf(raw);
  if (typeof joins !== 'boolean') throw invalid('has a member that neither joins nor does not');
  return {
    id: integerOf(id, 1, Number.MAX_SAFE_INTEGER),
    address: address === null ? null : addressFrom(address),
    directoryId: integerOf(directoryId, 0, DIRECTORY_ID_MAX),
    joins,
    replaces: integerOf(replaces, 0, Number.MAX_SAFE_INTEGER),
  };
}

function clusterIdFrom(raw: unknown): ClusterId {
  if (typeof raw === 'string' && CLUSTER_ID.test(raw)) return raw;
  throw invalid('has no cluster id');
}

function addressFrom(raw: unknown): NodeAddress {
  const { host, clientPort, peerPort, adminPort } = objectOf(raw);
  if (typeof host !== 'string' || host.length === 0 || host.length > HOST_LENGTH_MAX) throw invalid('has no good host');
  return {
    host,
    clientPort: integerOf(clientPort, 0, PORT_MAX),
    peerPort: integerOf(peerPort, 0, PORT_MAX),
    adminPort: integerOf(adminPort, 0, PORT_MAX),
  };
}

function objectOf(raw: unknown): Record<string, unknown> {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw invalid('is not made of objects');
  return raw as Record<string, unknown>;
}

function arrayOf(raw: unknown): readonly unknown[] {
  if (!Array.isArray(raw) || raw.length > 2 * MEMBERS_MAX) throw invalid('has no good list');
  return raw;
}

function idsOf(raw: unknown, sorted: boolean): NodeId[] {
  const ids = arrayOf(raw).map((id) => integerOf(id, 1, Number.MAX_SAFE_INTEGER));
  if (new Set(ids).size !== ids.length) throw invalid('names a member twice');
  if (sorted && ids.some((id, i) => i > 0 && id < (ids[i - 1] ?? 0))) throw invalid('has ids out of order');
  return ids;
}

function integerOf(raw: unknown, min: number, max: number): number {
  if (typeof raw === 'number' && Number.isSafeInteger(raw) && raw >= min && raw <= max) return raw;
  throw invalid('has a number out of range');
}

function invalid(what: string): RaftkvError {
  return new RaftkvError('MESSAGE_INVALID', `a configuration ${what}`);
}
