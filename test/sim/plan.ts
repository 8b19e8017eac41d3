import type { CoreOptions } from '../../src/raft/state/core.ts';
import type { ReplicaTiming } from '../../src/replica/loop/node-options.ts';
import type { TransferLimits } from '../../src/replica/snapshots/exchange.ts';
import type { SnapshotLimits } from '../../src/replica/snapshots/snapshotter.ts';
import type { ProposerLimits } from '../../src/replica/writes/proposer.ts';
import type { WalLimits } from '../../src/storage/wal/wal.ts';
import { Random } from '../support/random.ts';
import type { DiskHabits } from './disk.ts';
import type { BulkHabits, NetworkHabits } from './network.ts';
import { SCENARIO_KINDS, type ScenarioKind } from './scenario-kinds.ts';
import type { SocketHabits } from './socket.ts';
import { SUSTAINED_FAULT_KINDS, type SustainedFaultKind } from './sustained-fault-kinds.ts';

/**
 * What the world of one seed is like. Each seed draws its own sizes, speeds and limits, and switches on only some kinds
 * of fault: a world in which everything happens at once hides what one kind alone would show.
 */
const MEMBER_CHANGES = ['addMember', 'removeMember', 'replaceMember', 'promoteMember', 'startRemoved'] as const;
const FAULT_KINDS = [
  'kill',
  'powerLoss',
  'killAll',
  'powerLossAll',
  'dieAtEffect',
  'stop',
  'pause',
  'partitionOneWay',
  'isolate',
  'depose',
  'partition',
  'reset',
  'slowNetwork',
  'diskStall',
  'diskFails',
  'diskFull',
  'wallJump',
  'transfer',
  'resetBulk',
  'backup',
  'targetedFault',
  'wipe',
  'rot',
  'swapBack',
  ...MEMBER_CHANGES,
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Each of these in some worlds only, whatever else happens there: they take long to heal, and wait for each other. */
const RARE_KINDS: readonly FaultKind[] = ['wipe', 'rot', 'swapBack', ...MEMBER_CHANGES];

/** Few kinds, so that one of them is soon followed by another of its kind. */
const PROFILES: readonly (readonly FaultKind[])[] = [
  ['powerLoss', 'powerLossAll', 'dieAtEffect'],
  ['targetedFault', 'dieAtEffect'],
  ['depose', 'targetedFault', 'reset'],
  ['depose', 'powerLoss', 'transfer'],
  ['isolate', 'pause', 'partition'],
  // So that others have compacted what one node lacks.
  ['isolate', 'resetBulk', 'targetedFault'],
  ['isolate', 'dieAtEffect', 'resetBulk', 'powerLoss'],
  ['wipe', 'dieAtEffect', 'resetBulk'],
  ['wipe', 'rot', 'depose', 'kill'],
  ['rot', 'powerLoss', 'targetedFault'],
  ['swapBack', 'swapBack', 'depose', 'kill'],
  ['swapBack', 'wipe', 'isolate', 'transfer'],
  [...MEMBER_CHANGES, 'isolate', 'depose', 'partition'],
  [...MEMBER_CHANGES, 'transfer', 'kill', 'targetedFault'],
  [...MEMBER_CHANGES, 'wipe', 'isolate'],
  ['diskFull', 'isolate', 'kill', 'backup'],
];

export interface Plan {
  readonly seed: number;
  /** Those that form the cluster. */
  readonly nodeIds: readonly number[];
  /** Machines that may be added later. */
  readonly spareIds: readonly number[];
  readonly timing: ReplicaTiming;
  readonly network: NetworkHabits;
  readonly disk: DiskHabits;
  readonly sockets: SocketHabits;
  /** Of each node's clocks. */
  readonly drifts: readonly number[];
  readonly turnMs: number;
  readonly proposerLimits: ProposerLimits;
  readonly walLimits: Partial<WalLimits>;
  readonly snapshotLimits: Partial<SnapshotLimits>;
  readonly transferLimits: Partial<TransferLimits>;
  readonly logCacheBytesMax: number;
  /** What a leader sends at once to one follower; narrow, so that windows fill and appends are split. */
  readonly sending: Pick<CoreOptions, 'appendBytesMax' | 'flow'>;
  /** A replica hashes its whole state at every so many entries. */
  readonly hashInterval: number;
  readonly faults: readonly FaultKind[];
  /** Between two faults, on average. */
  readonly faultIntervalMs: number;
  /** How long faults go on. */
  readonly faultPhaseMs: number;
  /** An initial member whose configuration file lists other nodes than those of the others, until somebody puts it right. */
  readonly oddFile: OddFile | null;
  /** Instead of faults at random: one that the others must ride out while it lasts. */
  readonly sustainedFault: SustainedFaultKind | null;
  /** What the cluster has to go through at the end, once all is well. */
  readonly scenario: ScenarioKind | null;
  readonly clients: number;
  /** Between two requests of one client, on average. */
  readonly thinkMs: number;
  /** Clients are busy all at once for a fifth of each such time, and silent in between; 0 where each goes its own way. */
  readonly rhythmMs: number;
  /** What a client waits for a reply before it goes elsewhere. */
  readonly patienceMs: number;
  readonly keys: number;
  readonly operationsMax: number;
}

interface OddFile {
  readonly node: number;
  readonly lists: readonly number[];
  readonly rightAtMs: number;
  /** Where its file leaves a node out, that one may come late, so that only the others' lists tell of it. */
  readonly late: number;
  readonly lateMs: number;
}

const KIB = 1024;

/** The largest command, and what a batch that is nearly full may hold before it. */
const ENTRY_BYTES_MAX = 12 * KIB;

const WIDE = { appendBytesMax: 1 << 20, flow: { inflightMessagesMax: 256, inflightBytesMax: 1 << 24 } };
const NARROW = { appendBytesMax: 300, flow: { inflightMessagesMax: 2, inflightBytesMax: 1000 } };

/** What one history may hold: a verdict must take little of the time of a run. */
const OPERATIONS_MAX = 600;
const ODD_FILE_SHARE = 0.1;
const SCENARIO_SHARE = 0.2;
const REQUESTS_PER_BURST = 2.3;

/** Without these an scenario can't take place, or hardly ever does. */
interface ScenarioNeeds {
  readonly nodes?: readonly number[];
  readonly snapshotLogBytesMax?: number;
  readonly tailBytesMax?: number;
  readonly segmentBytesMax?: number;
  readonly cacheBytesMax?: number;
}

const SCENARIO_NEEDS: Record<ScenarioKind, ScenarioNeeds> = {
  nameTakenBack: { snapshotLogBytesMax: 64 * KIB },
  tornTwice: {},
  sameSession: { nodes: [3, 5] },
  keptTail: { nodes: [3], snapshotLogBytesMax: 64 * KIB },
  slowLog: { nodes: [3, 5], snapshotLogBytesMax: 64 * KIB },
  slowReader: {
    nodes: [3, 5],
    snapshotLogBytesMax: 64 * KIB,
    tailBytesMax: KIB,
    segmentBytesMax: 16 * KIB,
    cacheBytesMax: 2 * KIB,
  },
};

export function planOf(seed: number): Plan {
  const random = new Random(seed, 1);
  const scenario = scenarioOf(new Random(seed, 6));
  const needs = scenario === null ? {} : SCENARIO_NEEDS[scenario];
  const anyNodes = random.pick([1, 3, 3, 3, 3, 3, 3, 5, 5, 5]);
  const nodes = needs.nodes?.includes(anyNodes) === false ? 3 : anyNodes;
  const nodeIds = Array.from({ length: nodes }, (_, i) => i + 1);
  const electionTimeoutMs = random.pick([100, 300, 1000, 3000, 10_000, 10_000, 30_000]);
  const tickMs = Math.max(10, electionTimeoutMs / random.pick([10, 10, 30]));
  const heartbeatIntervalMs = Math.max(tickMs, electionTimeoutMs / random.pick([3, 6, 10]));
  const network = networkOf(random, electionTimeoutMs);
  const walSegmentBytes = Math.min(random.pick([16, 16, 32, 64, 256]) * KIB, needs.segmentBytesMax ?? Infinity);
  const clients = random.pick([1 + random.below(6), 1 + random.below(6), 12]);
  const faultPhaseMs = electionTimeoutMs * random.pick([15, 25, 25, 60]);
  const faults = faultsOf(random);
  const sustainedFault = sustainedFaultOf(random, nodes);
  const changesMembers = faults.some((kind) => (MEMBER_CHANGES as readonly FaultKind[]).includes(kind));
  const spares = sustainedFault === 'oldFile' ? 2 : changesMembers ? random.pick([1, 2, 4]) : 0;
  const allIds = Array.from({ length: nodes + spares }, (_, i) => i + 1);
  return {
    seed,
    nodeIds,
    spareIds: allIds.slice(nodes),
    timing: {
      heartbeatIntervalMs,
      tickMs,
      electionTimeoutMs,
      requestTimeoutMs: random.pick([2, 5, 10, 40]) * electionTimeoutMs,
    },
    network,
    disk: {
      latencyMs: random.pick([
        { min: 0.05, max: 0.5 },
        { min: electionTimeoutMs / 300, max: electionTimeoutMs / 30 },
        { min: electionTimeoutMs / 100, max: electionTimeoutMs / 4 },
      ]),
    },
    sockets: { delayMs: { min: 0.02, max: random.pick([0.1, 1, 5]) }, splitChance: random.pick([0, 0, 0.3]) },
    drifts: allIds.map(() => random.pick([0, 0, random.between(-0.001, 0.001), random.between(-0.1, 0.1)])),
    turnMs: random.pick([0, 0.05, 1]),
    proposerLimits: {
      itemBytesMax: 2 * KIB,
      storeBytesMax: random.pick([1 << 30, 1 << 30, 24 * KIB]),
      pendingWriteBytesMax: random.pick([16 * KIB, 1 << 20, 1 << 26]),
      batchBytesMax: random.pick([256, 4 * KIB, 8 * KIB]),
    },
    walLimits: {
      walSegmentBytes,
      walBlockBytesMax: random.pick([1, 4, 64]) * KIB,
      walEntryBytesMax: ENTRY_BYTES_MAX,
      walFirstFillBytes: random.pick([2, 16, 64]) * KIB,
      // Full disks leave what is ahead to elections, which want a few sectors each.
      walFillAheadBytes:
        sustainedFault === 'full' || sustainedFault === 'allFull' ? 48 * KIB : random.pick([2, 16, 48]) * KIB,
      walFillStepBytes: random.pick([1, 8, 32]) * KIB,
    },
    snapshotLimits: {
      snapshotLogBytes: Math.min(random.pick([1, 4, 4, 16, 16, 64, 1024]) * KIB, needs.snapshotLogBytesMax ?? Infinity),
      logTailBytes: Math.min(random.pick([0, 1, 8, 32]) * KIB, needs.tailBytesMax ?? Infinity),
      snapshotChunkBytes: random.pick([300, 512, 512, 4 * KIB]),
    },
    transferLimits: {
      transferPieceBytes: random.pick([200, 1024, 1024, 4 * KIB, 256 * KIB]),
      transferPiecesMax: random.pick([1, 2, 4]),
    },
    logCacheBytesMax: Math.min(random.pick([1, 2 * KIB, 16 * KIB, 1 << 25]), needs.cacheBytesMax ?? Infinity),
    sending: random.pick([WIDE, { ...WIDE, appendBytesMax: 1 }, NARROW]),
    hashInterval: random.pick([8, 64]),
    faults,
    faultIntervalMs: electionTimeoutMs * random.pick([0.3, 1, 2, 4]),
    faultPhaseMs,
    oddFile: sustainedFault === null ? oddFileOf(new Random(seed, 5), nodeIds, electionTimeoutMs) : null,
    sustainedFault,
    scenario,
    clients,
    // So that what clients may ask lasts for about as long as the fault phase.
    thinkMs: (faultPhaseMs * clients * REQUESTS_PER_BURST) / random.pick([300, OPERATIONS_MAX, OPERATIONS_MAX]),
    rhythmMs: electionTimeoutMs * random.pick([0, 0, 2, 6]),
    patienceMs: electionTimeoutMs * random.pick([1.5, 5, 30]),
    keys: random.pick([1, 3, 8]),
    operationsMax: OPERATIONS_MAX,
  };
}

function sustainedFaultOf(random: Random, nodes: number): SustainedFaultKind | null {
  if (nodes === 1) return random.chance(0.3) ? 'oldFile' : null;
  return random.chance(0.12) ? random.pick(SUSTAINED_FAULT_KINDS.filter((kind) => kind !== 'oldFile')) : null;
}

function scenarioOf(random: Random): ScenarioKind | null {
  return random.chance(SCENARIO_SHARE) ? random.pick(SCENARIO_KINDS) : null;
}

function faultsOf(random: Random): readonly FaultKind[] {
  if (random.chance(0.3)) return random.pick(PROFILES);
  const rare = RARE_KINDS.filter(() => random.chance(0.15));
  const common = FAULT_KINDS.filter(
    (kind) => !RARE_KINDS.includes(kind) && random.chance(kind === 'targetedFault' ? 0.6 : 0.3),
  );
  return common.length > 0 ? [...common, ...rare] : random.pick(PROFILES);
}

/** Too short or too long by one, and never so that it could be all that there is. */
function oddFileOf(random: Random, nodeIds: readonly number[], electionTimeoutMs: number): OddFile | null {
  if (nodeIds.length < 3 || !random.chance(ODD_FILE_SHARE)) return null;
  const node = random.pick(nodeIds);
  const missing = random.pick(nodeIds.filter((id) => id !== node));
  const short = nodeIds.filter((id) => id !== missing);
  const lists = random.chance(0.7) ? short : [...nodeIds, nodeIds.length + 1];
  const rightAtMs = electionTimeoutMs * random.between(0.5, 8);
  const lateMs = random.chance(0.5) ? rightAtMs * random.between(0.5, 1.5) : 0;
  return { node, lists, rightAtMs, late: missing, lateMs };
}

function networkOf(random: Random, electionTimeoutMs: number): NetworkHabits {
  const delayMs = random.pick([
    { min: 0.05, max: 0.5 },
    { min: electionTimeoutMs / 300, max: electionTimeoutMs / 30 },
    { min: electionTimeoutMs / 100, max: electionTimeoutMs / 5 },
  ]);
  const lossy = random.chance(0.3);
  const share = () => (lossy ? random.pick([0, 0.01, 0.05, 0.15]) : 0);
  return {
    delayMs,
    redialMs: random.pick([5, 50, 250]),
    silenceMs: electionTimeoutMs * random.pick([2, 5, 16]),
    bufferBytesMax: random.pick([8 * KIB, 64 * KIB, 1 << 26]),
    dropped: share(),
    repeated: share(),
    reordered: share(),
    bulk: bulkOf(random, lossy),
  };
}

function bulkOf(random: Random, lossy: boolean): BulkHabits {
  const share = () => (lossy ? random.pick([0, 0.02, 0.1]) : 0);
  return {
    slowness: random.pick([1, 1, 5, 20]),
    breaks: random.pick([0, 0, 0.05, 0.3]),
    dropped: share(),
    repeated: share(),
    reordered: share(),
  };
}
