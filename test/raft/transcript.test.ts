import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Transcript } from './transcript.ts';

/**
 * Plays the scenarios of transcripts/ and compares what comes of them with what is written there. The language is
 * described in transcript.ts. After a change that is meant, write them again and read the difference:
 *
 *   RAFT_TRANSCRIPTS=write npx vitest run test/raft/transcript.test.ts
 */
const folder = join(import.meta.dirname, 'transcripts');
const rewrites = process.env['RAFT_TRANSCRIPTS'] === 'write';
const SEPARATOR = '----';

/** The same text with what really came of the commands in place of what was expected. */
function play(text: string): string {
  const transcript = new Transcript();
  const blocks = text.trimEnd().split(/\n\n+/);
  return `${blocks.map((block) => playBlock(transcript, block)).join('\n\n')}\n`;
}

function playBlock(transcript: Transcript, block: string): string {
  const lines = block.split('\n');
  const end = lines.indexOf(SEPARATOR);
  const head = end < 0 ? lines : lines.slice(0, end);
  const commands = head.filter((line) => !line.startsWith('#'));
  if (commands.length === 0) return block;
  const shown = commands.flatMap((command) => transcript.run(command));
  return [...head, SEPARATOR, ...(shown.length > 0 ? shown : ['ok'])].join('\n');
}

describe('the transcript', () => {
  for (const name of readdirSync(folder)) {
    it(`${name} tells what happens`, () => {
      const path = join(folder, name);
      const text = readFileSync(path, 'utf8');
      const played = play(text);
      if (rewrites) writeFileSync(path, played);
      else expect(played).toBe(text);
    });
  }
});
