/** One deliberate fault: a piece of the shipped source, and what stands in its place in the copy that is put to the test. */
export interface Mutant {
  readonly name: string;
  /** What goes wrong with it; where known, who has had it before. */
  readonly fault: string;
  /** Below src/. */
  readonly file: string;
  /** Occurs exactly once in the file. */
  readonly find: string;
  readonly replace: string;
}
