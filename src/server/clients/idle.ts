import type { Clock } from '../../base/clock.ts';
import type { Counters } from '../counters.ts';
import type { Connection } from './connection.ts';

/** A silence is measured in so many steps: it is ended between its limit and one step more. */
const STEPS_PER_SILENCE = 4;

/**
 * Closes connections that neither say anything, nor read, nor wait for an answer, once that has lasted `idleMsMax`. One
 * timer for all: a request costs no look at the clock. Counting steps also keeps a process that was itself paused from
 * blaming its clients. Returns what ends the watch.
 */
export function watchIdle(
  clock: Clock,
  idleMsMax: number,
  connections: ReadonlySet<Connection>,
  counters: Counters,
): () => void {
  if (idleMsMax === 0) return () => {};
  const stepMs = idleMsMax / STEPS_PER_SILENCE;
  const step = () => {
    for (const connection of connections) {
      if (connection.countSilence() < STEPS_PER_SILENCE) continue;
      counters.idle_kicks++;
      connection.destroy();
    }
    cancel = clock.after(stepMs, step);
  };
  let cancel = clock.after(stepMs, step);
  return () => cancel();
}
