/**
 * What the holder of a data directory writes about itself, and what another process may conclude from it.
 *
 * A record is one line of JSON, padded with spaces to a fixed length, so that it can be overwritten in place. A reader that
 * meets a write in progress sees a record that differs from the one before, which is all that it needs.
 */
export interface LockRecord {
  /**
   * `claiming`: the process has taken the number, but the holder before it may not have noticed. `held`: all holders before it
   * have stopped. `released`: its process does nothing in the directory any more.
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
  /** For people only: names of hosts are not unique. */
  readonly host: string;
  /** Since when it holds the lock, as ISO 8601 by its own clock. For people only. */
  readonly since: string;
  /** Random, one for each attempt to take the lock. */
  readonly id: string;
  readonly place: Place;
  /** When the process started, in the system's own terms. Null if the system does not tell. */
  readonly started: string | null;
}

/**
 * Within which a pid means one process: a running kernel and one of its pid namespaces. No two namespaces that exist at the same
 * time have the same number, so if a number was used again, the processes of the older namespace are dead. Null if the system
 * does not tell both; such a place equals no other.
 */
export type Place = { readonly boot: string; readonly pidNamespace: string } | null;

/** The state of a process with this pid on the same machine and in the same pid namespace. */
export type ProcessState =
  | { readonly kind: 'dead' }
  /** `started` is null if the system does not tell. */
  | { readonly kind: 'alive'; readonly started: string | null };

const RECORD_BYTES = 1024;
const HOST_CHARS_MAX = 100;

export function formatRecord({ state, beat, holder }: LockRecord): string {
  const host = holder.host.replaceAll(/[^\x20-\x7e]/g, '?').slice(0, HOST_CHARS_MAX);
  return `${JSON.stringify({ state, beat, holder: { ...holder, host } }).padEnd(RECORD_BYTES - 1)}\n`;
}

/** Null if `text` is not a whole record: its process is writing it, or has died before. */
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
 * `free`: neither this holder nor one before it acts on the directory any more. `alive`: the holder's process exists.
 * `unknown`: only the heartbeat can tell.
 */
export type Verdict = 'free' | 'alive' | 'unknown';

/** @param stateOf asked only about pids of `here`. */
export function judge(record: LockRecord | null, here: Place, stateOf: (pid: number) => ProcessState): Verdict {
  if (record === null) return 'unknown';
  if (record.state === 'released') return 'free';
  const { place, pid, started } = record.holder;
  if (place === null || here === null) return 'unknown';
  // A pid of another kernel or namespace says nothing, and that another boot id means that the machine has restarted cannot
  // be known: host names and machine ids are copied with images and shared by containers.
  if (place.boot !== here.boot || place.pidNamespace !== here.pidNamespace) return 'unknown';
  const now = stateOf(pid);
  const isGone = now.kind === 'dead' || (now.started !== null && started !== null && now.started !== started);
  // The claimant is dead, but the holder whose number it superseded may not have noticed yet.
  if (isGone) return record.state === 'claiming' ? 'unknown' : 'free';
  // If the start is unknown, another process may have the pid by now.
  return now.kind === 'alive' && now.started !== null && started !== null ? 'alive' : 'unknown';
}

/** For messages: "process 4711 on host db1, since 2026-01-31T12:00:00.000Z". */
export function describeHolder(record: LockRecord | null): string {
  if (record === null) return 'a process that it does not name';
  const { pid, host, since } = record.holder;
  return `process ${pid} on host ${host}, since ${since}`;
}
