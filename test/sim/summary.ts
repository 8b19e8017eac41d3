import type { FaultCount } from './fault-counts.ts';
import type { RunResult } from './run.ts';

/**
 * A kind of fault that was planned so often and never took place can't take place any more: a change has taken away its
 * occasion, and the run shows nothing of it. The rarest kind that was measured, a wipe as a strike, took place in 14 of 383 plans;
 * at that rate, 200 plans without one come about once in 2,000 runs. Kinds that are planned less often, as scenarios and
 * sustained faults in short runs, are not judged here; `sim.test.ts` asserts that each of those takes place.
 */
export const NEVER_HAPPENED_PLANS_MIN = 200;

/** What many runs came to, for people. */
export class Summary {
  seeds = 0;
  readonly failures: RunResult[] = [];
  #simulatedMs = 0;
  #cpuMs = 0;
  readonly #counts = new Map<string, number>();
  readonly #faults = new Map<string, FaultCount>();

  add(result: RunResult): void {
    this.seeds++;
    this.#simulatedMs += result.simulatedMs;
    this.#cpuMs += result.cpuMs;
    if (result.violation !== null) this.failures.push(result);
    const { events, elections, entries, truncations, replies, unknown, undecided, counts } = result;
    const totals = { events, elections, entries, truncations, replies, unknown, undecided: undecided ? 1 : 0 };
    for (const [what, count] of Object.entries({ ...totals, ...counts })) {
      this.#counts.set(what, (this.#counts.get(what) ?? 0) + count);
    }
    for (const [kind, { planned, happened }] of Object.entries(result.faults)) {
      const before = this.#faults.get(kind) ?? { planned: 0, happened: 0 };
      this.#faults.set(kind, { planned: before.planned + planned, happened: before.happened + happened });
    }
  }

  progress(elapsedMs: number): string {
    const hours = this.#simulatedMs / 3_600_000;
    const perSecond = (hours / elapsedMs) * 1000;
    const perCpuSecond = (hours / Math.max(1, this.#cpuMs)) * 1000;
    const rate = `${perSecond.toFixed(2)} h/s, ${perCpuSecond.toFixed(2)} h/CPU s`;
    return `${this.seeds} seeds, ${hours.toFixed(1)} cluster-hours (${rate}), ${this.failures.length} failed`;
  }

  /** The kinds of faults that were planned often and never took place. */
  neverHappened(plansMin = NEVER_HAPPENED_PLANS_MIN): readonly string[] {
    const never = [...this.#faults].filter(([, { planned, happened }]) => planned >= plansMin && happened === 0);
    return never.map(([kind]) => kind).sort();
  }

  /** What happened, and each kind of fault: how often it was planned, and how often it took place. */
  text(): string {
    const counts = [...this.#counts].map(([what, count]) => [wordsOf(what), `${count}`]);
    const faults = [...this.#faults].map(([kind, { planned, happened }]) => [kind, `${planned}`, `${happened}`]);
    return [...table(['', 'count'], counts), '', ...table(['fault', 'planned', 'happened'], faults)].join('\n');
  }
}

/** Lines with aligned columns: the first to the left, numbers to the right. Sorted by the first. */
function table(head: readonly string[], rows: readonly (readonly string[])[]): readonly string[] {
  const lines = [head, ...rows.toSorted(([a = ''], [b = '']) => (a < b ? -1 : 1))];
  const widths = head.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)));
  const pad = (cell: string, i: number) => (i === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[i] ?? 0));
  return lines.map((line) => line.map(pad).join('  '));
}

/** `snapshotsTaken` becomes `snapshots taken`; codes of refusals stay as they are. */
function wordsOf(name: string): string {
  return name.replace(/(?<=[a-z])[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
}
