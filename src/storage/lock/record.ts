/**
 * What a process that takes the lock writes about itself, and what another process may conclude from it.
 *
 * A record is one line of JSON, padded with spaces to a fixed length, so that it can be overwritten in place. If a
 * record is read while it is being written, it differs from the record before, which is all that a watcher needs to
 * know.
 */
export interface LockRecord {
  /**
   * `claiming`: the process has created its number, but the previous holder may not have noticed. `held`: all previous
   * holders have stopped. `released`: the process doesn't use the directory any more.
   */
  readonly state: 'claiming' | 'held' | 'released';
  /** Increases with every write of this record. */
  readonly beat: number;
  readonly holder: Identity;
}

/** Identifies a process. */
export interface Identity {
  /** The pid in the process's own pid namespace. */
  readonly pid: number;
  /** For messages only, because host names are not unique. */
  readonly host: string;
  /** When the process tried to take the lock, in ISO 8601 by its own clock. For messages only. */
  readonly since: string;
  /** Random, one for each attempt to take the lock. */
  readonly id: string;
  readonly place: Place;
  /** When the process started, as the system formats it; null if the system doesn't tell. */
  readonly started: string | null;
}

/**
 * The scope in which a pid identifies a process: a running kernel and one of its pid namespaces. No two namespaces that
 * exist at the same time have the same number. So if a number is used again, the processes of the older namespace are
 * dead. Null if the system doesn't tell both; then the place is equal to no other.
 */
export type Place = { readonly boot: string; readonly pidNamespace: string } | null;

/** The state of a process with this pid on the same machine and in the same pid namespace. */
export type ProcessState =
  | { readonly kind: 'dead' }
  /** `started` is null if the system doesn't tell. */
  | { readonly kind: 'alive'; readonly started: string | null };

/** The fixed length of a record: more than its fields need, so that a shorter record always overwrites a longer one. */
const RECORD_BYTES = 1024;
/** The length to which a host name is truncated, so that the record fits into `RECORD_BYTES`. */
const HOST_CHARS_MAX = 100;

export function formatRecord({ state, beat, holder }: LockRecord): string {
  const host = holder.host.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, HOST_CHARS_MAX);
  return `${JSON.stringify({ state, beat, holder: { ...holder, host } }).padEnd(RECORD_BYTES - 1)}\n`;
}

/** Returns null if `text` is not a whole record: its process is writing it, or died before it had written it. */
export function parseRecord(text: string): LockRecord | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  return isRecord(value) ? value : null;
}

function isRecord(value: unknown): value is LockRecord {
  if (!isObject(value) || !isObject(value['holder'])) return false;
  const { state, beat } = value;
  if (state !== 'claiming' && state !== 'held' && state !== 'released') return false;
  const { pid, host, since, id, place, started } = value['holder'];
  if (typeof beat !== 'number' || typeof pid !== 'number') return false;
  if (place !== null && !(isObject(place) && isText(place['boot']) && isText(place['pidNamespace']))) return false;
  return isText(host) && isText(since) && isText(id) && (started === null || isText(started));
}

const isText = (value: unknown): value is string => typeof value === 'string';

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null;
}

/**
 * `free`: neither the process of the record nor an earlier holder uses the directory any more. `alive`: the process
 * exists. `unknown`: the record must be watched.
 */
export type Verdict = 'free' | 'alive' | 'unknown';

/** @param stateOf is only called for pids of the place `here` */
export function judge(record: LockRecord | null, here: Place, stateOf: (pid: number) => ProcessState): Verdict {
  if (record === null) return 'unknown';
  if (record.state === 'released') return 'free';
  const { place, pid, started } = record.holder;
  if (place === null || here === null) return 'unknown';
  // A pid of another kernel or namespace means nothing here. Another boot id doesn't prove that this machine has
  // restarted, because the record may be another machine's: host names and machine ids are copied with images and
  // shared by containers.
  if (place.boot !== here.boot || place.pidNamespace !== here.pidNamespace) return 'unknown';
  const now = stateOf(pid);
  const isGone = now.kind === 'dead' || (now.started !== null && started !== null && now.started !== started);
  // The claimant is dead, but the holder before it may not have noticed the claim and may still be running.
  if (isGone) return record.state === 'claiming' ? 'unknown' : 'free';
  // If a start time is unknown, the pid may belong to another process by now.
  return now.kind === 'alive' && now.started !== null && started !== null ? 'alive' : 'unknown';
}

/** For messages: "process 4711 on host db1, since 2026-01-31T12:00:00.000Z". */
export function describeHolder(record: LockRecord | null): string {
  if (record === null) return 'an unknown process';
  const { pid, host, since } = record.holder;
  return `process ${pid} on host ${host}, since ${since}`;
}
