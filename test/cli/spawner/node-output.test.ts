import { PassThrough } from 'node:stream';
import { finished } from 'node:stream/promises';
import { describe, expect, it } from 'vitest';
import { eachLine, jsonFormat, prettyFormat } from '../../../src/cli/spawner/node-output.ts';

async function linesOf(...chunks: (string | Buffer)[]): Promise<string[]> {
  const stream = new PassThrough();
  const lines: string[] = [];
  eachLine(stream, (line) => lines.push(line));
  for (const chunk of chunks) stream.write(chunk);
  stream.end();
  await finished(stream);
  return lines;
}

describe('the lines of a stream', () => {
  it('are whole, however they arrive, the unfinished last one included', async () => {
    const bytes = Buffer.from('one\nzwölf\n\nthree');
    for (let at = 0; at <= bytes.length; at++) {
      expect(await linesOf(bytes.subarray(0, at), bytes.subarray(at))).toEqual(['one', 'zwölf', '', 'three']);
    }
  });

  it('are split if they are endless', async () => {
    const lines = await linesOf('x'.repeat(150_000), '\nnext\n');
    expect(lines.map((line) => line.length)).toEqual([65_536, 65_536, 18_928, 4]);
  });
});

describe('the JSON form', () => {
  const source = { nodeId: 2, stream: 'stderr' } as const;

  it('leaves a log line as it is', () => {
    expect(jsonFormat('{"level":"info","node":2,"msg":"hi"}', source)).toBe('{"level":"info","node":2,"msg":"hi"}\n');
  });

  it('wraps what is none, with its node', () => {
    expect(JSON.parse(jsonFormat('FATAL ERROR: heap', source))).toEqual({
      level: 'error',
      node: 2,
      stream: 'stderr',
      msg: 'FATAL ERROR: heap',
    });
  });
});

describe('the form for a terminal', () => {
  const format = prettyFormat(
    (line) => `pretty ${JSON.parse(line).msg}\nsecond row\n`,
    (nodeId) => `node ${nodeId} | `,
  );

  it('puts the prefix before every row', () => {
    expect(format('{"level":"info","msg":"hi"}', { nodeId: 1, stream: 'stdout' })).toBe(
      'node 1 | pretty hi\nnode 1 | second row\n',
    );
  });

  it('leaves what is no log line as it is', () => {
    expect(format('Segmentation fault', { nodeId: 1, stream: 'stderr' })).toBe('node 1 | Segmentation fault\n');
  });
});
