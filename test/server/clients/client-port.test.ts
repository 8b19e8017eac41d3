import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { promisify } from 'node:util';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { newClient, serveStore } from '../../support/client-port.ts';
import { converse, turn } from '../../support/text-client.ts';

/** Debian's libmemcached-tools. */
const MEMCCAPABLE = '/usr/bin/memccapable';

describe('the client port', () => {
  it.skipIf(!existsSync(MEMCCAPABLE))(`passes memccapable (skipped without ${MEMCCAPABLE})`, async () => {
    const { port } = await serveStore();
    const args = ['-a', '-v', '-h', '127.0.0.1', '-p', String(port)];
    const { stdout, stderr } = await promisify(execFile)(MEMCCAPABLE, args).catch((error: unknown) => {
      // It exits with 1 where a case fails; which one, and at what line of it, is in its output.
      if (typeof error === 'object' && error !== null && 'stdout' in error && 'stderr' in error) return error;
      throw error;
    });
    const output = `${stdout}${stderr}`;
    expect(output.match(/\[pass\]/g)?.length, output).toBe(27);
  });

  it('serves on, whatever bytes others send it', async () => {
    const { port, server } = await serveStore({ lingerMsMax: 20 });
    const healthy = await newClient(port);
    const words = fc.constantFrom(
      'set ',
      'get ',
      'a ',
      '1 ',
      '0 ',
      '\r\n',
      '\n',
      'noreply',
      'gat ',
      'cas ',
      '99999 ',
      'HTTP/',
    );
    const noise = fc.array(
      fc.oneof(
        words.map((word) => Buffer.from(word)),
        fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)),
      ),
      { maxLength: 40 },
    );
    await fc.assert(
      fc.asyncProperty(noise, fc.boolean(), async (parts, reset) => {
        const client = await newClient(port);
        for (const part of parts) client.socket.write(part);
        await turn();
        if (reset) client.socket.resetAndDestroy();
        else client.end();
        healthy.send('version\r\n');
        expect(await healthy.reply('\r\n')).toBe('VERSION 1.6.45\r\n');
      }),
      { numRuns: 150 },
    );
    while (server.connections > 1) await turn();
  });

  it('has room for silent connections beside one that is busy', async () => {
    const { port, server } = await serveStore();
    await Promise.all(Array.from({ length: 500 }, () => newClient(port)));
    while (server.connections < 500) await turn();
    expect(await converse(port, 'set a 0 0 1\r\nx\r\nget a\r\n')).toBe('STORED\r\nVALUE a 0 1\r\nx\r\nEND\r\n');
  });
});
