import type { Change, ChangeObserver } from '../../kv/changes.ts';
import type { ResultCode } from '../../kv/types.ts';
import { encodeKey, secondsLeft } from '../../memcached/items.ts';
import type { Replica } from '../../replica/types.ts';
import type { Counters } from '../counters.ts';
import type { ClientLimits } from './limits.ts';

/**
 * The lines that wait for one watching connection, bounded: what finds no room is counted and lost, and the reader is
 * told how much that was before the next line that it gets.
 */
export class Watch {
  readonly #bytesMax: number;
  readonly #counters: Counters;
  readonly #onLine: () => void;
  readonly #lines: string[] = [];
  #taken = 0;
  /** Bytes of the lines that the socket has not taken. */
  #bytes = 0;
  /** The number of lines that were dropped since the last one that found room. */
  #skipped = 0;

  constructor(bytesMax: number, counters: Counters, onLine: () => void) {
    this.#bytesMax = bytesMax;
    this.#counters = counters;
    this.#onLine = onLine;
  }

  push(line: string): void {
    const skippedLine = this.#skipped === 0 ? '' : `skipped=${this.#skipped}\n`;
    if (this.#bytes + skippedLine.length + line.length > this.#bytesMax) {
      this.#skipped++;
      this.#counters.log_watcher_skipped++;
      return;
    }
    this.#skipped = 0;
    this.#lines.push(skippedLine + line);
    this.#bytes += skippedLine.length + line.length;
    this.#onLine();
  }

  /** The next line, with the number of lines lost before it; null where none waits. */
  take(): string | null {
    const line = this.#lines[this.#taken];
    if (line === undefined) return null;
    this.#taken++;
    this.#bytes -= line.length;
    this.#counters.log_watcher_sent++;
    // A reader that keeps up may never reach the end of the lines, but those that were sent must be freed all the same.
    if (this.#taken * 2 >= this.#lines.length) {
      this.#lines.splice(0, this.#taken);
      this.#taken = 0;
    }
    return line;
  }
}

/**
 * The connections that watch the changes that this node applies.
 *
 *   state machine ─ change ─▶ Watchers ─ one line for all ─▶ Watch of each ─▶ its connection, as fast as it reads
 *
 * The state machine is observed only while somebody watches.
 */
export class Watchers implements ChangeObserver {
  readonly #replica: Replica;
  readonly #limits: ClientLimits;
  readonly #counters: Counters;
  readonly #watches = new Set<Watch>();
  /** The lines made so far: each has its number. */
  #lines = 0;

  constructor(replica: Replica, limits: ClientLimits, counters: Counters) {
    this.#replica = replica;
    this.#limits = limits;
    this.#counters = counters;
  }

  get size(): number {
    return this.#watches.size;
  }

  /** Null where too many watch already. `onLine` is called while entries are applied: it must only record them. */
  add(onLine: () => void): Watch | null {
    if (this.#watches.size >= this.#limits.watchersMax) return null;
    const watch = new Watch(this.#limits.watchedBytesMax, this.#counters, onLine);
    this.#watches.add(watch);
    if (this.#watches.size === 1) this.#replica.observe(this);
    return watch;
  }

  remove(watch: Watch): void {
    this.#watches.delete(watch);
    if (this.#watches.size === 0) this.#replica.observe(null);
  }

  changed(change: Change): void {
    const line = lineOf(change, ++this.#lines);
    for (const watch of this.#watches) watch.push(line);
  }
}

/** In memcached's form, which ends in a bare newline. A change belongs to no connection of this node: cfd is 0. */
function lineOf({ timeMs, key, verb, code, expiresAtMs, valueBytes }: Change, number: number): string {
  const seconds = Math.floor(timeMs / 1000);
  const microseconds = String((timeMs % 1000) * 1000).padStart(6, '0');
  const head = `ts=${seconds}.${microseconds} gid=${number}`;
  const name = encodeKey(key);
  if (verb === 'delete') return `${head} type=deleted key=${name} cmd=delete clsid=1 cfd=0 size=0\n`;
  const ttl = expiresAtMs === Number.POSITIVE_INFINITY ? 0 : secondsLeft(expiresAtMs, timeMs);
  const store = `status=${statusOf(code)} cmd=${verb} ttl=${ttl} clsid=1 cfd=0 size=${valueBytes}`;
  return `${head} type=item_store key=${name} ${store}\n`;
}

function statusOf(code: ResultCode): string {
  switch (code) {
    case 'notStored':
      return 'not_stored';
    case 'exists':
      return 'exists';
    case 'notFound':
      return 'not_found';
    case 'tooLarge':
      return 'too_large';
    case 'outOfMemory':
      return 'no_memory';
    default:
      return 'stored';
  }
}
