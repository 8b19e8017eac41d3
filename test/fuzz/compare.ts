/** Where two runs of replies part, in words that help; null where they are the same. */
export function firstDifference(received: string, expected: string, requests: readonly string[]): object | null {
  if (received === expected) return null;
  const [got, wanted] = [received.split('\r\n'), expected.split('\r\n')];
  let line = 0;
  while (got[line] === wanted[line] && line < got.length) line++;
  return {
    line,
    requests: requests.length,
    before: got.slice(Math.max(0, line - 4), line),
    received: got.slice(line, line + 4),
    expected: wanted.slice(line, line + 4),
  };
}
