import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RequestParser } from '../../src/memcached/parser.ts';
import { BAD_LINE, ERROR, NOTHING } from '../../src/memcached/replies.ts';
import { Command, SwallowedBlock } from '../../src/memcached/request.ts';

const LIMITS = { itemBytesMax: 1024, multiGetLineBytesMax: 8192 };
const nameOf = (command: Command) => Object.entries(Command).find(([, value]) => value === command)?.[0] ?? '?';

function parsed(text: string) {
  const parser = new RequestParser(LIMITS);
  const bytes = Buffer.from(text, 'latin1');
  const consumed = parser.parse(bytes, 0, bytes.length, 0);
  return { parser, bytes, consumed };
}

/** What one request says, in words. */
function describeRequest(parser: RequestParser, bytes: Buffer): string {
  const text = (start: number, end: number) => bytes.toString('latin1', start, end);
  const { command, noreply, flags, exptimeSeconds, argHigh, argLow } = parser;
  switch (command) {
    case Command.reply:
      return `reply ${parser.reply.toString('latin1')}`;
    case Command.stats:
      return `stats ${parser.subject}`;
    case Command.quit:
    case Command.hangUp:
    case Command.listKeys:
      return nameOf(command);
    case Command.get:
    case Command.gets:
    case Command.gat:
    case Command.gats: {
      const keys = Array.from({ length: parser.keyCount }, (_, i) => text(parser.keyStartAt(i), parser.keyEndAt(i)));
      return `${nameOf(command)} ${JSON.stringify(keys)}`;
    }
    default: {
      const key = command === Command.flushAll ? '' : text(parser.keyStart, parser.keyEnd);
      const value = command <= Command.cas ? text(parser.valueStart, parser.valueEnd) : '';
      return JSON.stringify([nameOf(command), key, value, flags, exptimeSeconds, argHigh, argLow, noreply]);
    }
  }
}

/**
 * All requests of a stream that comes in pieces, as a connection takes them. With every piece the bytes are in a new
 * place, with others around them, so that nothing can be remembered by position or read beyond the end.
 */
function requestsOf(pieces: readonly Buffer[]): string[] {
  const parser = new RequestParser(LIMITS);
  const requests: string[] = [];
  let left: Buffer = Buffer.alloc(0);
  let scanned = 0;
  let needBytes = 0;
  let swallowed: SwallowedBlock | null = null;
  for (const piece of pieces) {
    const margin = (left.length % 3) + 1;
    const bytes = Buffer.concat([Buffer.alloc(margin, '\n'), left, piece, Buffer.from('\r\nquit\r\n')]);
    const end = margin + left.length + piece.length;
    let start = margin;
    while (start < end) {
      if (swallowed !== null) {
        start += swallowed.take(bytes, start, end);
        if (swallowed.done) swallowed = null;
        continue;
      }
      if (end - start < needBytes) break;
      const consumed = parser.parse(bytes, start, end, scanned);
      if (consumed === 0) {
        scanned = parser.scannedBytes;
        needBytes = parser.needBytes;
        if (needBytes > 0) expect(needBytes).toBeGreaterThan(end - start);
        break;
      }
      scanned = 0;
      needBytes = 0;
      start += consumed;
      expect(start).toBeLessThanOrEqual(end);
      requests.push(describeRequest(parser, bytes));
      if (parser.command === Command.hangUp) return requests;
      if (parser.swallowBytes >= 0) swallowed = new SwallowedBlock(parser.swallowBytes, parser.swallowBareNewline);
    }
    left = bytes.subarray(start, end);
  }
  return requests;
}

const lineEnd = fc.constantFrom('\r\n', '\n');
const key = fc.constantFrom('a', 'key', '\xff\t', 'noreply', 'k'.repeat(250), 'k'.repeat(251));
const number = fc.oneof(
  fc.nat().map(String),
  fc.constantFrom('0', '-1', '+7', 'x', '18446744073709551615', '18446744073709551616', '4294967296'),
);
const noreply = fc.constantFrom('', ' noreply', ' other');
const data = fc.string({ unit: fc.constantFrom('x', '\r', '\n', '\r\n', '\0', '\xff', ' get a'), maxLength: 12 });

const storage = fc
  .record({
    name: fc.constantFrom('set', 'add', 'replace', 'append', 'prepend', 'cas'),
    key,
    flags: number,
    exptime: number,
    unique: number,
    claim: fc.constantFrom(0, 0, 0, 0, 1, -1, 2000),
    noreply,
    data,
    lineEnd,
    dataEnd: lineEnd,
  })
  .map((r) => {
    const unique = r.name === 'cas' ? ` ${r.unique}` : '';
    const bytes = r.data.length + r.claim;
    return `${r.name} ${r.key} ${r.flags} ${r.exptime} ${bytes}${unique}${r.noreply}${r.lineEnd}${r.data}${r.dataEnd}`;
  });
const others = fc
  .tuple(
    fc.oneof(
      fc
        .tuple(fc.constantFrom('incr', 'decr', 'touch', 'delete'), key, number, noreply)
        .map((parts) => parts.join(' ')),
      fc
        .tuple(fc.constantFrom('get', 'gets'), fc.array(key, { maxLength: 20 }))
        .map(([n, keys]) => [n, ...keys].join(' ')),
      fc
        .tuple(fc.constantFrom('gat 0', 'gats x'), fc.array(key, { maxLength: 4 }))
        .map(([n, keys]) => [n, ...keys].join(' ')),
      fc.constantFrom('version', 'mn', '', 'x', 'stats', 'stats detail on', 'quit', 'flush_all', 'flush_all 3 noreply'),
      fc.constantFrom('verbosity 1', 'lru_crawler metadump all', 'shutdown', 'foo bar', `get ${'a '.repeat(1500)}`),
    ),
    lineEnd,
  )
  .map(([line, end]) => line + end);
const pipeline = fc.array(fc.oneof(storage, others), { minLength: 1, maxLength: 12 }).map((parts) => parts.join(''));

/** Splits at arbitrary places; some pieces are a single byte. */
function split(bytes: Buffer, splits: readonly number[]): Buffer[] {
  const places = [...new Set(splits.map((c) => c % (bytes.length + 1)))].sort((a, b) => a - b);
  return [0, ...places].map((place, i) => bytes.subarray(place, places[i] ?? bytes.length));
}

describe('RequestParser', () => {
  it('finds the fields of a set where they stand', () => {
    const { parser, bytes, consumed } = parsed('set key 7 -3 5\r\nhello\r\nrest');
    expect(consumed).toBe(23);
    expect(describeRequest(parser, bytes)).toBe('["set","key","hello",7,-3,0,0,false]');
  });

  it('tells both halves of a 64-bit number', () => {
    const { parser } = parsed('cas a 0 0 0 18446744073709551614 noreply\r\n\r\n');
    expect([parser.argHigh, parser.argLow, parser.noreply]).toEqual([0xffff_ffff, 0xffff_fffe, true]);
    expect(parsed('incr a 4294967296\r\n').parser).toMatchObject({ argHigh: 1, argLow: 0 });
    expect(parsed('incr a 999999999999999\r\n').parser).toMatchObject({ argHigh: 232830, argLow: 2764472319 });
    expect(parsed('incr a 0001000000000000000\r\n').parser).toMatchObject({ argHigh: 232830, argLow: 2764472320 });
  });

  it('reads any unsigned 64-bit number, and nothing above', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 66n }), (value) => {
        const { parser } = parsed(`incr a ${value}\r\n`);
        if (value >= 2n ** 64n) return parser.command === Command.reply;
        return (BigInt(parser.argHigh) << 32n) + BigInt(parser.argLow) === value;
      }),
    );
  });

  it('says how long the whole request is once the line is there', () => {
    const { parser, consumed } = parsed('set a 0 0 100\r\nxx');
    expect([consumed, parser.needBytes]).toEqual([0, 15 + 102]);
    expect(parsed('set a 0 0 100\nxx').parser.needBytes).toBe(14 + 101);
    expect(parsed('set a 0 0 10').parser.needBytes).toBe(0);
  });

  it('has the block of a refused line swallowed, with the line end that it may have', () => {
    expect(parsed('set a x 0 10\r\n').parser).toMatchObject({ swallowBytes: 10, swallowBareNewline: false });
    expect(parsed('set a x 0 10\n').parser).toMatchObject({
      swallowBytes: 10,
      swallowBareNewline: true,
      reply: BAD_LINE,
    });
    expect(parsed('set a x 0 10 noreply\r\n').parser).toMatchObject({ swallowBytes: 10, reply: NOTHING });
    expect(parsed('set a 0 0 -1\r\n').parser).toMatchObject({ swallowBytes: -1, reply: BAD_LINE });
    expect(parsed('set a 0\r\n').parser).toMatchObject({ swallowBytes: -1, reply: ERROR });
  });

  it('keeps a set that is too large apart from other commands: its old value has to go', () => {
    const valueBytesMax = LIMITS.itemBytesMax - 59 - 1;
    expect(parsed(`set a 0 0 ${valueBytesMax + 1}\r\n`).parser).toMatchObject({
      command: Command.setTooLarge,
      keyStart: 4,
    });
    expect(parsed(`add a 0 0 ${valueBytesMax + 1}\r\n`).parser.command).toBe(Command.reply);
    expect(parsed(`set a 0 0 ${valueBytesMax}\r\n`).consumed).toBe(0);
  });

  it('hangs up on an endless line, sooner where it is no multi-get', () => {
    expect(parsed('x'.repeat(2048)).consumed).toBe(0);
    expect(parsed('x'.repeat(2049)).parser.command).toBe(Command.hangUp);
    expect(parsed(`get ${'x'.repeat(8188)}`).consumed).toBe(0);
    expect(parsed(`get ${'x'.repeat(8189)}`).parser.command).toBe(Command.hangUp);
    expect(parsed(`${'x'.repeat(2048)}\n`).parser.reply).toBe(ERROR);
    expect(parsed(`${'x'.repeat(2049)}\n`).parser.command).toBe(Command.hangUp);
  });

  it('finds the same requests however the bytes are split', () => {
    fc.assert(
      fc.property(pipeline, fc.array(fc.nat(), { maxLength: 30 }), (text, splits) => {
        const bytes = Buffer.from(text, 'latin1');
        const whole = requestsOf([bytes]);
        expect(requestsOf(split(bytes, splits))).toEqual(whole);
        expect(requestsOf(split(bytes, [...bytes.keys()]))).toEqual(whole);
      }),
      { numRuns: 300 },
    );
  });

  it('refuses a data block that does not end as it must as soon as its last byte is there', () => {
    for (const text of ['set a 0 0 5\r\nhelloXX', 'set a 0 0 5\nhelloXX', 'set a 0 0 1\n\nXX']) {
      const bytes = Buffer.from(text);
      const refused = ['reply CLIENT_ERROR bad data chunk\r\n'];
      for (const place of bytes.keys())
        expect(requestsOf(split(bytes, [place])).slice(0, 1), `${text} at ${place}`).toEqual(refused);
      expect(requestsOf(split(bytes, [...bytes.keys()])).slice(0, 1)).toEqual(refused);
    }
  });

  it('takes random bytes without an error and without standing still', () => {
    const words = fc.constantFrom(
      'set ',
      'get ',
      'a',
      ' ',
      '0',
      '1 ',
      '\r\n',
      '\n',
      '\r',
      'noreply',
      '-',
      'cas ',
      'HTTP/',
      'gat ',
    );
    const noise = fc.array(
      fc.oneof(
        words.map((w) => Buffer.from(w)),
        fc.uint8Array({ maxLength: 20 }),
      ),
      { maxLength: 60 },
    );
    fc.assert(
      fc.property(noise, fc.array(fc.nat(), { maxLength: 10 }), (parts, splits) => {
        const bytes = Buffer.concat(parts);
        expect(requestsOf(split(bytes, splits))).toEqual(requestsOf([bytes]));
      }),
      { numRuns: 500 },
    );
  });

  it('is ready for the next request after one of a hundred thousand keys', () => {
    const parser = new RequestParser({ itemBytesMax: 1024, multiGetLineBytesMax: 1024 * 1024 });
    const large = Buffer.from(`get ${'a '.repeat(100_000)}\r\n`);
    expect(parser.parse(large, 0, large.length, 0)).toBe(large.length);
    expect(parser.keyCount).toBe(100_000);
    const small = Buffer.from('get b c\r\n');
    expect(parser.parse(small, 0, small.length, 0)).toBe(small.length);
    expect(describeRequest(parser, small)).toBe('get ["b","c"]');
  });
});
