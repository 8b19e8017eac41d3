/** How often a kind of fault was tried, and how often it took place. */
export interface FaultCount {
  readonly planned: number;
  /** Less than `planned` if there was no occasion: a node that is down can't be killed. */
  readonly happened: number;
}

/** Faults by kind. */
export class FaultCounts {
  readonly byKind: Record<string, FaultCount> = {};

  /** Counts a fault as planned. Returns what to call once it takes place; more than one call counts once. */
  plan(kind: string): () => void {
    this.#add(kind, 1, 0);
    let happened = false;
    return () => {
      if (!happened) this.#add(kind, 0, 1);
      happened = true;
    };
  }

  #add(kind: string, planned: number, happened: number): void {
    const before = this.byKind[kind] ?? { planned: 0, happened: 0 };
    this.byKind[kind] = { planned: before.planned + planned, happened: before.happened + happened };
  }
}
