import { RaftkvError } from '../base/errors.ts';
import { readUint64, writeUint64 } from '../base/uint64.ts';

/**
 * The handshake: two nodes check each other before they exchange any data.
 *
 * ```
 *   dialer                         listener
 *     hello ──────────────────────────▶  checks it
 *     checks it  ◀────────────────────── hello      (or refuse, and the connection ends)
 *     up; ping ───────────────────────▶  up         (or refuse, and the connection ends)
 * ```
 *
 * The ping tells the listener that its hello was accepted. So a link is up at an end only if both ends have accepted.
 *
 * Payload of a hello (little-endian). Magic and protocol version have the same place in every version, so that two versions
 * can tell each other apart. A later version may append fields, which this one ignores.
 *
 * ```
 *  0  u32 magic            "RKVP"
 *  4  u16 protocolVersion  the version of the format of data frames
 *  6  u16 length           bytes of the cluster name
 *  8  u32 fromId
 * 12  u32 toId
 * 16  u64 incarnation      number of the sender's incarnation
 * 24  16 bytes cluster id  of the sender's data directory (ADR 0014); zeros if it has none
 * 40  cluster name         UTF-8
 *  …  u8  channel          0 main, 1 bulk
 * ```
 */
export const PROTOCOL_VERSION = 3;
const MAGIC = 0x50564b52;
const CLUSTER_ID_AT = 24;
const HELLO_FIXED_BYTES = 40;
const NO_CLUSTER_ID = '0'.repeat(32);
/**
 * The bytes of the longest cluster name and of the longest text of a refusal: both fit into
 * `HANDSHAKE_PAYLOAD_BYTES_MAX`.
 */
const CLUSTER_NAME_BYTES_MAX = 512;
const REFUSAL_TEXT_BYTES_MAX = 512;

/** The longest payload during the handshake. Bounds the memory that an unauthenticated connection can use. */
export const HANDSHAKE_PAYLOAD_BYTES_MAX = 1024;

/** The purpose of a connection between two nodes; see `TransportEvents`. */
export type Channel = 'main' | 'bulk';

const CHANNELS: readonly Channel[] = ['main', 'bulk'];

export interface Hello {
  readonly protocolVersion: number;
  readonly clusterName: string;
  readonly fromId: number;
  readonly toId: number;
  readonly incarnation: number;
  /** 32 hexadecimal digits; empty if the sender's directory has none. */
  readonly clusterId: string;
  /** Null for a channel that this version doesn't know. */
  readonly channel: Channel | null;
}

export type RefusalCode =
  | 'version'
  | 'cluster'
  | 'history'
  | 'self'
  | 'wrongAddressee'
  | 'unknownPeer'
  | 'wrongDirection'
  | 'certificate'
  | 'removed'
  | 'channel';

export interface Refusal {
  readonly code: RefusalCode;
  readonly text: string;
}

const REFUSAL_CODES: readonly RefusalCode[] = [
  'version',
  'cluster',
  'self',
  'wrongAddressee',
  'unknownPeer',
  'wrongDirection',
  'certificate',
  'removed',
  'channel',
  'history',
];

const REMEDIES: Record<RefusalCode, string> = {
  version: 'Run the same version of raftkv on every node.',
  cluster: 'Configure the same cluster name on every node, and check host and peerPort.',
  history:
    'The two data directories hold different histories, as after a restore. `raftkv log verify` shows the cluster id of each. Empty the one that does not belong here; the other nodes fill it again.',
  self: 'Two entries of the configuration point to the same node: check ids, hosts and peerPorts.',
  wrongAddressee: 'A host and peerPort in the configuration belong to another node: check them on both nodes.',
  unknownPeer: 'Configure the same list of nodes on every node, and restart those whose list has changed.',
  wrongDirection:
    'The node with the higher id dials the other: check that both nodes agree on the ids, and that it can reach the other.',
  certificate: 'Give each node its own certificate, which names it.',
  removed: 'Stop that node, or add it to the cluster again.',
  channel: 'Run the same version of raftkv on every node.',
};

interface Identity {
  readonly selfId: number;
  readonly clusterName: string;
  /** Empty if the data directory has none. */
  readonly clusterId: string;
  readonly incarnation: number;
}

/** The identity of this node, and its knowledge of the members. */
export interface LocalIdentity extends Identity {
  isPeer(id: number): boolean;
  /** Whether the node was removed from the cluster. */
  isRemoved(id: number): boolean;
}

/** @throws RaftkvError CONFIG_INVALID if the cluster name is longer than `CLUSTER_NAME_BYTES_MAX` */
export function encodeHello(local: Identity, toId: number, channel: Channel = 'main'): Buffer {
  const clusterName = Buffer.from(local.clusterName, 'utf8');
  if (clusterName.length > CLUSTER_NAME_BYTES_MAX) {
    throw new RaftkvError(
      'CONFIG_INVALID',
      `the cluster name is ${clusterName.length} bytes long`,
      `Choose a name of at most ${CLUSTER_NAME_BYTES_MAX} bytes.`,
    );
  }
  const payload = Buffer.alloc(HELLO_FIXED_BYTES + clusterName.length + 1);
  payload.writeUInt32LE(MAGIC, 0);
  payload.writeUInt16LE(PROTOCOL_VERSION, 4);
  payload.writeUInt16LE(clusterName.length, 6);
  payload.writeUInt32LE(local.selfId, 8);
  payload.writeUInt32LE(toId, 12);
  writeUint64(payload, local.incarnation, 16);
  payload.write(local.clusterId, CLUSTER_ID_AT, 'hex');
  payload.set(clusterName, HELLO_FIXED_BYTES);
  payload[HELLO_FIXED_BYTES + clusterName.length] = CHANNELS.indexOf(channel);
  return payload;
}

/** @throws RaftkvError FRAME_INVALID if the bytes are no hello */
export function decodeHello(payload: Buffer): Hello {
  if (payload.length < HELLO_FIXED_BYTES || payload.readUInt32LE(0) !== MAGIC) throw notHello();
  const nameEnd = HELLO_FIXED_BYTES + payload.readUInt16LE(6);
  if (nameEnd > payload.length) throw notHello();
  return {
    protocolVersion: payload.readUInt16LE(4),
    clusterName: payload.toString('utf8', HELLO_FIXED_BYTES, nameEnd),
    fromId: payload.readUInt32LE(8),
    toId: payload.readUInt32LE(12),
    incarnation: readUint64(payload, 16),
    clusterId: clusterIdIn(payload),
    channel: CHANNELS[payload[nameEnd] ?? 0] ?? null,
  };
}

function clusterIdIn(payload: Buffer): string {
  const clusterId = payload.toString('hex', CLUSTER_ID_AT, HELLO_FIXED_BYTES);
  return clusterId === NO_CLUSTER_ID ? '' : clusterId;
}

function notHello(): RaftkvError {
  return new RaftkvError('FRAME_INVALID', 'a peer connection did not begin with a raftkv hello');
}

/** The peer that was dialed, and the channel. */
export interface Dialed {
  readonly id: number;
  readonly channel: Channel;
}

/**
 * Returns why the sender of `hello` must be refused, or null if it is accepted.
 * @param dialed null if the connection was accepted rather than dialed
 */
export function checkHello(hello: Hello, local: LocalIdentity, dialed: Dialed | null): Refusal | null {
  const { selfId } = local;
  if (hello.protocolVersion !== PROTOCOL_VERSION) {
    return refusal(
      'version',
      `node ${selfId} speaks protocol version ${PROTOCOL_VERSION}, but the peer speaks version ${hello.protocolVersion}`,
    );
  }
  if (hello.clusterName !== local.clusterName) {
    return refusal('cluster', `node ${selfId} belongs to cluster "${local.clusterName}", not "${hello.clusterName}"`);
  }
  if (hello.fromId === selfId) return refusal('self', `the peer has the same node id, ${selfId}`);
  if (hello.toId !== selfId)
    return refusal('wrongAddressee', `the peer dialed node ${hello.toId}, but this is node ${selfId}`);
  if (dialed !== null && hello.fromId !== dialed.id) {
    return refusal('wrongAddressee', `node ${dialed.id} was dialed, but node ${hello.fromId} answered`);
  }
  if (hello.clusterId !== '' && local.clusterId !== '' && hello.clusterId !== local.clusterId) {
    return refusal(
      'history',
      `the data directory of node ${selfId} belongs to cluster id ${local.clusterId}, that of node ${hello.fromId} to ${hello.clusterId}`,
    );
  }
  if (!local.isPeer(hello.fromId)) {
    if (local.isRemoved(hello.fromId)) return removedRefusal(hello.fromId);
    return refusal('unknownPeer', `node ${hello.fromId} is not a member of the cluster as node ${selfId} knows it`);
  }
  if (dialed === null && hello.fromId < selfId) {
    return refusal('wrongDirection', `node ${selfId} dials node ${hello.fromId}, not the other way round`);
  }
  const expected = dialed?.channel ?? hello.channel;
  if (expected === null || hello.channel !== expected) {
    return refusal('channel', `node ${selfId} expects the ${expected ?? 'main or the bulk'} channel`);
  }
  return null;
}

export function removedRefusal(id: number): Refusal {
  return refusal('removed', `node ${id} was removed from the cluster`);
}

function refusal(code: RefusalCode, text: string): Refusal {
  return { code, text };
}

/**
 * Returns the payload of a refusal: u8 code, then a text for the log of the refused node (UTF-8, truncated at
 * `REFUSAL_TEXT_BYTES_MAX`).
 */
export function encodeRefusal({ code, text }: Refusal): Buffer {
  const words = Buffer.from(text, 'utf8').subarray(0, REFUSAL_TEXT_BYTES_MAX);
  return Buffer.concat([Buffer.of(REFUSAL_CODES.indexOf(code) + 1), words]);
}

/** @throws RaftkvError FRAME_INVALID if the bytes are no refusal */
export function decodeRefusal(payload: Buffer): Refusal {
  const code = REFUSAL_CODES[(payload[0] ?? 0) - 1];
  if (code === undefined) throw new RaftkvError('FRAME_INVALID', 'a peer refused the connection with an unknown code');
  // The text goes into logs and terminals, so only printable ASCII is kept.
  return { code, text: payload.toString('utf8', 1).replace(/[^\x20-\x7e]/g, '?') };
}

/** Returns the refusal as an error for the log of this node. */
export function refusalError({ code, text }: Refusal, refusedBy: 'us' | 'peer'): RaftkvError {
  const who = refusedBy === 'us' ? 'refused a peer' : 'refused by a peer';
  return new RaftkvError('PEER_REFUSED', `${who} (${code}): ${text}`, REMEDIES[code]);
}
