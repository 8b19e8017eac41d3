import { decodeKey } from './meta-flags.ts';
import {
  BAD_ARITHMETIC_MODE,
  BAD_KEY_ENCODING,
  BAD_LINE,
  BAD_SET_MODE,
  ERROR,
  OBJECT_TOO_LARGE,
  OPAQUE_TOO_LONG,
} from './replies.ts';
import { Command, type Request, VALUE_LENGTH_MAX } from './request.ts';
import { readUint32 } from './tokens.ts';

/** The parsers of the lines of meta commands. Each returns what `RequestParser.parse` returns. */

export function readMetaGet(request: Request, buffer: Buffer, consumed: number): number {
  const error = readKeyAndFlags(request, buffer, 2);
  if (error !== null) return request.answer(error, consumed);
  return request.complete(request.meta.has('T') ? Command.metaTouch : Command.metaGet, consumed);
}

export function readMetaSet(request: Request, buffer: Buffer, start: number, next: number, end: number): number {
  const { tokens } = request;
  const consumed = next - start;
  if (tokens.count < 2) return request.answer(ERROR, consumed);
  const bytes = tokens.count < 3 ? -1 : readUint32(buffer, tokens.start(2), tokens.end(2));
  if (bytes < 0 || bytes > VALUE_LENGTH_MAX) return request.answer(BAD_LINE, consumed);
  const error = readKeyAndFlags(request, buffer, 3);
  const modeCounts = error === null || error === OPAQUE_TOO_LONG;
  if (modeCounts && !'SEAPR'.includes(request.meta.mode)) return request.refuseBlock(BAD_SET_MODE, bytes, consumed);
  if (error !== null) return request.refuseBlock(error, bytes, consumed);
  if (request.itemBytes(bytes) <= request.limits.itemBytesMax) {
    return request.readBlock(Command.metaSet, bytes, buffer, start, next, end);
  }
  const replaces = (request.meta.mode === '' || request.meta.mode === 'S') && !request.meta.has('C');
  if (!replaces) return request.refuseBlock(OBJECT_TOO_LARGE, bytes, consumed);
  return request.swallow(Command.metaSetTooLarge, bytes, consumed);
}

export function readMetaOther(request: Request, command: Command, buffer: Buffer, consumed: number): number {
  const error = readKeyAndFlags(request, buffer, 2);
  const isCount = command === Command.metaArithmetic;
  // As in memcached, a wrong mode is reported rather than an opaque token that is too long.
  const modeCounts = isCount && (error === null || error === OPAQUE_TOO_LONG);
  if (modeCounts && !'I+D-'.includes(request.meta.mode)) return request.answer(BAD_ARITHMETIC_MODE, consumed);
  if (error !== null) return request.answer(error, consumed);
  return request.complete(command, consumed);
}

export function readMetaDebug(request: Request, buffer: Buffer, consumed: number): number {
  const { tokens } = request;
  if (tokens.count < 2 || !request.readKey()) return request.answer(BAD_LINE, consumed);
  request.decodedKey = null;
  if (tokens.count > 2 && tokens.is(2, buffer, 'b') && !decodeKeyOf(request, buffer)) {
    return request.answer(BAD_LINE, consumed);
  }
  return request.complete(Command.metaDebug, consumed);
}

/**
 * Reads the key, and the flags, which begin at field `firstFlag`. Returns the error reply, or null if all are valid.
 */
function readKeyAndFlags(request: Request, buffer: Buffer, firstFlag: number): Buffer | null {
  request.decodedKey = null;
  if (request.tokens.count < 2) return ERROR;
  if (!request.readKey()) return BAD_LINE;
  const error = request.meta.read(request.tokens, buffer, firstFlag);
  if ((error !== null && error !== OPAQUE_TOO_LONG) || !request.meta.has('b')) return error;
  return decodeKeyOf(request, buffer) ? error : BAD_KEY_ENCODING;
}

function decodeKeyOf(request: Request, buffer: Buffer): boolean {
  request.decodedKey = decodeKey(buffer, request.keyStart, request.keyEnd);
  if (request.decodedKey === null) return false;
  request.keyStart = 0;
  request.keyEnd = request.decodedKey.length;
  return true;
}
