/** Shows how something fares: on a terminal in one line that changes, else a line for each new phase and now and then. */

/** For who reads a file: often enough to see that it moves. */
const REPEAT_MS = 5_000;
/** Back to the first column, and nothing to the right of it. */
const CLEAR_LINE = '\r\u001b[K';

export interface ProgressLine {
  /** `name` says what is being done, `text` with how far it is. */
  show(name: string, text: string): void;
  /** Whatever is written next begins on a line of its own. */
  end(): void;
}

export const SILENT: ProgressLine = { show() {}, end() {} };

export function createProgressLine(
  stream: Pick<NodeJS.WriteStream, 'write'> & { readonly isTTY?: boolean },
): ProgressLine {
  let shownName = '';
  let shownAtMs = 0;
  return {
    show(name, text) {
      if (stream.isTTY === true) {
        stream.write(`${CLEAR_LINE}${text}`);
        shownName = name;
        return;
      }
      const nowMs = performance.now();
      if (name === shownName && nowMs - shownAtMs < REPEAT_MS) return;
      stream.write(`${text}\n`);
      shownName = name;
      shownAtMs = nowMs;
    },
    end() {
      if (stream.isTTY === true && shownName !== '') stream.write(CLEAR_LINE);
      shownName = '';
    },
  };
}
