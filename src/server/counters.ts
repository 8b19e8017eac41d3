/**
 * What this port has counted since it was opened or since `stats reset`: of this node's own clients only. Names are
 * memcached's where it has one.
 */
export function newCounters() {
  return {
    total_connections: 0,
    rejected_connections: 0,
    cmd_get: 0,
    cmd_set: 0,
    cmd_flush: 0,
    cmd_touch: 0,
    get_hits: 0,
    get_misses: 0,
    delete_hits: 0,
    delete_misses: 0,
    incr_hits: 0,
    incr_misses: 0,
    decr_hits: 0,
    decr_misses: 0,
    cas_hits: 0,
    cas_misses: 0,
    cas_badval: 0,
    touch_hits: 0,
    touch_misses: 0,
    store_too_large: 0,
    store_no_memory: 0,
    auth_cmds: 0,
    auth_errors: 0,
    idle_kicks: 0,
    log_watcher_skipped: 0,
    log_watcher_sent: 0,
    bytes_read: 0,
    bytes_written: 0,
  };
}

export type Counters = ReturnType<typeof newCounters>;
