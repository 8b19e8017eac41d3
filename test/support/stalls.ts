/**
 * Notices when this whole process stood still, as when the machine under it is suspended or starved. What a test
 * measures across such a moment says nothing about the cluster, so tests that measure time leave it out.
 */
const INTERVAL_MS = 10;
/** Garbage collection and a busy machine come to less. */
const STALL_MS_MIN = 100;

export interface StallWatch {
  /** How long this process stood still since that moment of `performance.now()`. */
  stalledMs(sinceMs: number): number;
  stop(): void;
}

export function watchStalls(): StallWatch {
  const stalls: { atMs: number; lengthMs: number }[] = [];
  let lastMs = performance.now();
  const record = () => {
    const nowMs = performance.now();
    const lengthMs = nowMs - lastMs - INTERVAL_MS;
    if (lengthMs > STALL_MS_MIN) stalls.push({ atMs: nowMs, lengthMs });
    lastMs = nowMs;
  };
  const timer = setInterval(record, INTERVAL_MS);
  timer.unref();
  return {
    stalledMs(sinceMs) {
      record();
      return stalls.reduce((sum, { atMs, lengthMs }) => (atMs > sinceMs ? sum + lengthMs : sum), 0);
    },
    stop: () => clearInterval(timer),
  };
}
