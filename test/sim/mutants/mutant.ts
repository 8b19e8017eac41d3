/** One deliberate fault: a piece of the shipped source, and what stands in its place in the copy that is put to the test. */
export interface Mutant extends Change {
  readonly name: string;
  /** What goes wrong with it; where known, who has had it before. */
  readonly fault: string;
  /** Where a second guard stands behind the first, so that either would do: it is taken away, too. */
  readonly also?: Change;
}

interface Change {
  /** Below src/. */
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}
