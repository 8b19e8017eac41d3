import { RaftkvError } from '../../base/errors.ts';
import { readUint64, writeUint64 } from '../../base/uint64.ts';
import type { NodeId } from '../../raft/state/types.ts';

/**
 * What peers say on the bulk link, as the payload of one frame. Little-endian; every message begins with
 *
 * ```
 *  0  u8  kind           1 read, 2 piece, 3 gone
 *  1  u8  × 3            zero
 *  4  u64 index, u64 term  which snapshot
 * 20  u64 offset         in its file
 * 28  u64                read: how many bytes; piece: the length of the whole file; gone: 0
 * 36  the bytes          of a piece
 * ```
 */
export interface SnapshotRead {
  readonly kind: 'read';
  readonly index: number;
  readonly term: number;
  readonly offset: number;
  readonly length: number;
}
export interface SnapshotPieceMessage {
  readonly kind: 'piece';
  readonly index: number;
  readonly term: number;
  readonly offset: number;
  readonly byteLength: number;
  readonly bytes: Buffer;
}
/** The sender no longer has that snapshot. */
interface SnapshotGone {
  readonly kind: 'gone';
  readonly index: number;
  readonly term: number;
}
export type BulkMessage = SnapshotRead | SnapshotPieceMessage | SnapshotGone;

const KIND = { read: 1, piece: 2, gone: 3 } as const;
const HEAD_BYTES = 36;

export function encodeBulk(message: BulkMessage): Buffer[] {
  const { index, term } = message;
  switch (message.kind) {
    case 'read':
      return [head(KIND.read, index, term, message.offset, message.length)];
    case 'piece':
      return [head(KIND.piece, index, term, message.offset, message.byteLength), message.bytes];
    case 'gone':
      return [head(KIND.gone, index, term, 0, 0)];
  }
}

function head(kind: number, index: number, term: number, offset: number, length: number): Buffer {
  const buffer = Buffer.allocUnsafe(HEAD_BYTES);
  buffer.writeUInt32LE(kind, 0);
  writeUint64(buffer, index, 4);
  writeUint64(buffer, term, 12);
  writeUint64(buffer, offset, 20);
  writeUint64(buffer, length, 28);
  return buffer;
}

/** The bytes of a piece are a view of the frame. @throws RaftkvError MESSAGE_INVALID where the frame is no message. */
export function decodeBulk(frame: Buffer, from: NodeId): BulkMessage {
  if (frame.length < HEAD_BYTES) throw invalid(from, 'is truncated');
  const [index, term, offset, length] = [4, 12, 20, 28].map((at) => readUint64(frame, at)) as Numbers;
  for (const number of [index, term, offset, length]) {
    if (!Number.isSafeInteger(number)) throw invalid(from, 'has a number out of range');
  }
  switch (frame.readUInt32LE(0)) {
    case KIND.read:
      return { kind: 'read', index, term, offset, length };
    case KIND.piece:
      return { kind: 'piece', index, term, offset, byteLength: length, bytes: frame.subarray(HEAD_BYTES) };
    case KIND.gone:
      return { kind: 'gone', index, term };
    default:
      throw invalid(from, 'is of unknown kind');
  }
}

type Numbers = [number, number, number, number];

function invalid(from: NodeId, what: string): RaftkvError {
  const remedy = 'Run the same version of raftkv on all nodes.';
  return new RaftkvError('MESSAGE_INVALID', `a message on the bulk link from node ${from} ${what}`, remedy);
}
