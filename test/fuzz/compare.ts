/** Tells in the replies which request they belong to: a miss that echoes the request's number. */
export function markerOf(index: number): string {
  return `mg no-such-key O#${index}\r\n`;
}

export function withMarkers(requests: readonly string[]): string {
  return requests.map((request, i) => request + markerOf(i)).join('');
}

export interface Difference {
  readonly before: readonly string[];
  readonly request: string;
  readonly received: string;
  readonly expected: string;
}

/** The first request whose replies are not the same; null where all are. */
export function firstDifference(received: string, expected: string, requests: readonly string[]): Difference | null {
  if (received === expected) return null;
  const [got, wanted] = [received.split(/(?<=EN O#\d+\r\n)/), expected.split(/(?<=EN O#\d+\r\n)/)];
  let at = 0;
  while (got[at] === wanted[at] && at < got.length) at++;
  // A request that swallowed markers has moved the count.
  const index = Number(/EN O#(\d+)\r\n$/.exec(wanted[at] ?? '')?.[1] ?? at);
  const request = requests[index] ?? '';
  const before = requests
    .slice(Math.max(0, index - 200), index)
    .filter((one) => one.split(' ').some((field) => request.split(' ').some((own) => own.trim() === field.trim())));
  return { before, request, received: got[at] ?? '', expected: wanted[at] ?? '' };
}
