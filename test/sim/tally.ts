import type { RunResult } from './run.ts';

/** What many runs came to, for people. */
export class Tally {
  seeds = 0;
  readonly failures: RunResult[] = [];
  #simulatedMs = 0;
  #events = 0;
  #elections = 0;
  #entries = 0;
  #truncations = 0;
  #replies = 0;
  #unknown = 0;
  #undecided = 0;
  #cpuMs = 0;
  readonly #faults = new Map<string, number>();

  add(result: RunResult): void {
    this.seeds++;
    this.#simulatedMs += result.simulatedMs;
    this.#events += result.events;
    this.#elections += result.elections;
    this.#entries += result.entries;
    this.#truncations += result.truncations;
    this.#replies += result.replies;
    this.#unknown += result.unknown;
    this.#cpuMs += result.cpuMs;
    if (result.undecided) this.#undecided++;
    if (result.violation !== null) this.failures.push(result);
    for (const [kind, count] of Object.entries(result.faults)) {
      this.#faults.set(kind, (this.#faults.get(kind) ?? 0) + count);
    }
  }

  progress(elapsedMs: number): string {
    const hours = this.#simulatedMs / 3_600_000;
    const perSecond = (hours / elapsedMs) * 1000;
    const perCpuSecond = (hours / Math.max(1, this.#cpuMs)) * 1000;
    const rate = `${perSecond.toFixed(2)} h/s, ${perCpuSecond.toFixed(2)} h/CPU s`;
    return `${this.seeds} seeds, ${hours.toFixed(1)} cluster-hours (${rate}), ${this.failures.length} failed`;
  }

  summary(): string {
    const faults = [...this.#faults].sort(([a], [b]) => (a < b ? -1 : 1)).map(([kind, count]) => `${kind} ${count}`);
    return [
      `elections ${this.#elections}, entries committed ${this.#entries}, logs truncated ${this.#truncations}, replies ${this.#replies}, outcomes unknown ${this.#unknown}`,
      `events ${this.#events}, histories without a verdict ${this.#undecided}`,
      `faults: ${faults.join(', ')}`,
    ].join('\n');
  }
}
