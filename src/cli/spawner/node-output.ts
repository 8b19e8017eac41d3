import type { Readable } from 'node:stream';
import { StringDecoder } from 'node:string_decoder';

/**
 * What the nodes print, brought to one standard output.
 *
 *   node's JSON lines → on a terminal: `node 1 | 12:04:05.123 INFO: serving`
 *                     → else: as they are, each already with its node
 *   anything else     → prefixed, or wrapped into JSON: a crash of Node itself prints no JSON
 */

/** A longer line is split, so that no node can fill the spawner's memory. */
const LINE_CHARACTERS_MAX = 64 * 1024;

/** Turns one line of a node's output into the text to print, with a newline. */
export type LineFormat = (line: string, source: LineSource) => string;

export interface LineSource {
  /** 0 for the spawner itself. */
  readonly nodeId: number;
  readonly stream: 'stdout' | 'stderr';
}

/** Calls back with each line of a stream, and with the unfinished one at its end. */
export function eachLine(stream: Readable, onLine: (line: string) => void): void {
  const decoder = new StringDecoder('utf8');
  let rest = '';
  stream.on('data', (chunk: Buffer) => {
    const lines = (rest + decoder.write(chunk)).split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) onLine(line);
    while (rest.length > LINE_CHARACTERS_MAX) {
      onLine(rest.slice(0, LINE_CHARACTERS_MAX));
      rest = rest.slice(LINE_CHARACTERS_MAX);
    }
  });
  stream.on('end', () => {
    rest += decoder.end();
    if (rest !== '') onLine(rest);
    rest = '';
  });
}

/** One JSON object per line. */
export const jsonFormat: LineFormat = (line, { nodeId, stream }) => {
  if (isLogLine(line)) return `${line}\n`;
  return `${JSON.stringify({ level: stream === 'stderr' ? 'error' : 'info', node: nodeId, stream, msg: line })}\n`;
};

/** For a person. `pretty` renders a JSON log line; `prefix` names and colours the source. */
export function prettyFormat(pretty: (line: string) => string, prefix: (nodeId: number) => string): LineFormat {
  return (line, { nodeId }) => {
    const text = isLogLine(line) ? pretty(line) : `${line}\n`;
    const mark = prefix(nodeId);
    return text
      .trimEnd()
      .split('\n')
      .map((row) => `${mark}${row}\n`)
      .join('');
  };
}

function isLogLine(line: string): boolean {
  return line.startsWith('{"level":') && line.endsWith('}');
}
