import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CHUNK_HEADER_BYTES,
  chunkLength,
  encodeChunkHeader,
  encodeSnapshotHead,
  encodeSnapshotTrailer,
  readSnapshotHeader,
  readSnapshotTrailer,
  SNAPSHOT_HEADER_BYTES,
  SNAPSHOT_TRAILER_BYTES,
  verifyChunk,
} from '../../../src/storage/snapshots/format.ts';
import { readSnapshotFile } from '../../../src/storage/snapshots/reader.ts';
import { writeSnapshotFile } from '../../../src/storage/snapshots/writer.ts';
import { MemoryDisk } from '../../support/memory-disk.ts';

const position = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const crc = fc.integer({ min: 0, max: 0xffff_ffff });
const bytes = (maxLength: number) => fc.uint8Array({ maxLength }).map((array) => Buffer.from(array));

describe('the bytes of a snapshot', () => {
  it('have a header that reads back as it was written', () => {
    fc.assert(
      fc.property(
        position,
        position,
        fc.string({ maxLength: 60 }),
        bytes(300),
        (index, term, clusterName, configuration) => {
          const head = encodeSnapshotHead(index, term, clusterName, configuration);
          expect(head.length).toBe(SNAPSHOT_HEADER_BYTES + configuration.length);
          expect(head.subarray(SNAPSHOT_HEADER_BYTES)).toEqual(configuration);
          const header = readSnapshotHeader(head);
          expect(header).toMatchObject({ version: 1, index, term, configurationBytes: configuration.length });
          expect(header?.clusterName).toBe(Buffer.from(clusterName).toString());
        },
      ),
    );
  });

  it('have no header with numbers that are not exact', () => {
    for (const [index, term] of [
      [2 ** 53, 1],
      [1, 2 ** 60],
    ] as const) {
      expect(readSnapshotHeader(encodeSnapshotHead(index, term, 'demo', Buffer.alloc(0)))).toBe(null);
    }
  });

  it('have a trailer that reads back as it was written, and not with any one bit turned over', () => {
    fc.assert(
      fc.property(position, position, crc, fc.nat(SNAPSHOT_TRAILER_BYTES * 8 - 1), (chunks, byteLength, chain, bit) => {
        const trailer = encodeSnapshotTrailer({ chunks, byteLength, chain });
        expect(trailer.length).toBe(SNAPSHOT_TRAILER_BYTES);
        expect(readSnapshotTrailer(trailer)).toEqual({ chunks, byteLength, chain });
        expect(chunkLength(trailer)).toBe(null);
        trailer.writeUInt8(trailer.readUInt8(bit >> 3) ^ (1 << (bit & 7)), bit >> 3);
        expect(readSnapshotTrailer(trailer)).toBe(null);
      }),
    );
  });

  it('chain each chunk to the one before', () => {
    fc.assert(
      fc.property(bytes(500), crc, crc, (body, chain, other) => {
        const header = Buffer.alloc(CHUNK_HEADER_BYTES);
        encodeChunkHeader(header, 0, body, chain);
        expect(chunkLength(header)).toBe(body.length);
        expect(verifyChunk(header, body, chain)).toBe(true);
        if (other !== chain) expect(verifyChunk(header, body, other)).toBe(false);
      }),
    );
  });

  it('read back as written, chunk by chunk, whatever the chunks', async () => {
    await fc.assert(
      fc.asyncProperty(
        position,
        position,
        bytes(2000),
        fc.array(bytes(3000), { maxLength: 12 }),
        async (...written) => {
          const [index, term, configuration, chunks] = written;
          const disk = new MemoryDisk();
          await disk.makeDirectory('/b');
          const head = { index, term, configuration, clusterName: 'demo' };
          const { byteLength } = await writeSnapshotFile(disk, '/b/f', head, async (write) => {
            for (const chunk of chunks) await write(chunk);
          });
          const found: Buffer[] = [];
          const read = await readSnapshotFile(disk, '/b/f', (chunk) => {
            found.push(chunk);
          });
          expect(read).toEqual({ ...head, byteLength, chunks: chunks.length });
          expect(found).toEqual(chunks);
          expect(disk.contentOf('/b/f').length).toBe(byteLength);
          expect(disk.paths()).toEqual(['/b/f']);
        },
      ),
      { numRuns: 60 },
    );
  });

  it('stay what they are: a file of this version, byte by byte', async () => {
    const disk = new MemoryDisk();
    await disk.makeDirectory('/b');
    const head = { index: 258, term: 7, configuration: Buffer.from('{"voters":[1]}'), clusterName: 'demo' };
    await writeSnapshotFile(disk, '/b/f', head, async (write) => {
      await write(Buffer.from('one'));
      await write(Buffer.alloc(0));
    });
    const content = disk.contentOf('/b/f');
    expect(content.subarray(0, 48).toString('hex')).toBe(HEADER_START);
    expect(content.subarray(48, 508).every((byte) => byte === 0)).toBe(true);
    expect(content.subarray(508).toString('hex')).toBe(REST);
  });
});

// Worked out by another program from the layout as it is described.
const HEADER_START = '726166746b76534e010000000e00000002010000000000000700000000000000efd9c7cc040064656d6f000000000000';
const REST =
  'b12d78717b22766f74657273223a5b315d7d0ba4b80e030000006f6e6516a490e300000000c7d11b53ffffffff726166746b' +
  '7653450200000000000000450200000000000016a490e3';
