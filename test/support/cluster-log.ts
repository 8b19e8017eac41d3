/** What a failed test shows of each node. */
const TAIL_LINES = 40;

interface Entry {
  /** Null for what concerns all nodes. */
  readonly node: number | null;
  readonly line: string;
}

/** What the nodes of a cluster logged and what the test did to them, in the order in which it came. */
export class ClusterLog {
  readonly #entries: Entry[] = [];
  readonly #lines: string[] = [];

  add(node: number | null, line: string): void {
    this.#entries.push({ node, line });
    this.#lines.push(line);
  }

  /** All lines of all nodes, oldest first. */
  lines(): readonly string[] {
    return this.#lines;
  }

  /** The last lines of each of these nodes, one node after the other. */
  tails(nodes: readonly number[]): string {
    const tailOf = (id: number) => {
      const own = this.#entries.filter(({ node }) => node === id || node === null).map(({ line }) => line);
      const shown = own.slice(-TAIL_LINES);
      return [`── node ${id}: the last ${shown.length} of ${own.length} lines`, ...shown].join('\n');
    };
    return nodes.map(tailOf).join('\n');
  }
}
