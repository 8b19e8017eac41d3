import { describe, expect, it } from 'vitest';
import { heapMibNeeded, processLimits, resourceWarnings } from '../../../src/cli/node/resources.ts';
import { fakeConfig } from '../fake-cluster.ts';

const config = fakeConfig(1);
const MIB = 1024 * 1024;

describe('what a configuration needs of its process', () => {
  it('is a heap for a full store', () => {
    const needed = heapMibNeeded(config);
    expect(needed).toBe(1.5 * 64 + 256);
    expect(resourceWarnings(config, { heapBytesMax: needed * MIB, openFilesMax: 1e6 })).toEqual([]);
    expect(resourceWarnings(config, { heapBytesMax: needed * MIB - 1, openFilesMax: 1e6 })).toEqual([
      expect.stringMatching(/^limits\.storeBytesMax: .*NODE_OPTIONS=--max-old-space-size=352/),
    ]);
  });

  it('is a file descriptor for every connection', () => {
    expect(resourceWarnings(config, { heapBytesMax: 1e12, openFilesMax: 356 })).toEqual([]);
    expect(resourceWarnings(config, { heapBytesMax: 1e12, openFilesMax: 355 })).toEqual([
      expect.stringMatching(/^limits\.connectionsMax: needs 356 open files, but the limit of this process is 355/),
    ]);
  });

  it('is compared with what this process really has', () => {
    const { heapBytesMax, openFilesMax } = processLimits();
    expect(heapBytesMax).toBeGreaterThan(64 * MIB);
    expect(openFilesMax).toBeGreaterThan(0);
  });
});
