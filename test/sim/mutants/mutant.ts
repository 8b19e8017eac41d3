/** One deliberate fault: a change of the shipped source, in the copy that is put to the test. */
export type Mutant = Change & {
  readonly name: string;
  /** What goes wrong with it; where known, who has had it before. */
  readonly fault: string;
  /** A second guard stands behind the first, so that either would do: it is taken away, too. */
  readonly also?: Change;
};

export type Change = Replacement | NewBody;

/** Some text of a file becomes another. */
interface Replacement {
  /** Below src/. */
  readonly file: string;
  /** The function, method or constant in which `find` occurs; the whole file when it is absent. */
  readonly within?: string;
  /** Occurs exactly once. White space and comments make no difference. */
  readonly find: string;
  readonly replace: string;
}

/** A function does something else. */
interface NewBody {
  /** Below src/. */
  readonly file: string;
  readonly within: string;
  /** The statements between its braces. */
  readonly body: string;
}
