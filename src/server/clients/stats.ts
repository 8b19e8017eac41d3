import type { Clock } from '../../base/clock.ts';
import { type Stat, writeStats } from '../../memcached/items.ts';
import type { Output } from '../../memcached/output.ts';
import { BAD_STATS_DETAIL, END, ERROR, OK, PROTOCOL_VERSION, RESET } from '../../memcached/replies.ts';
import type { Replica } from '../../replica/types.ts';
import { type Counters, newCounters } from '../counters.ts';
import type { ClientLimits } from './limits.ts';

/** The sources of the answers to `stats`. */
export interface StatsSources {
  readonly clock: Clock;
  readonly startedAtMs: number;
  /** The program's own version. */
  readonly version: string;
  readonly host: string;
  readonly port: number;
  readonly storeBytesMax: number;
  readonly limits: ClientLimits;
  /** Clients have to log in. */
  readonly authenticates: boolean;
  readonly replica: Replica;
  readonly counters: Counters;
  /** The number of connections that watch. */
  readonly watchers: { readonly size: number };
  readonly connections: ReadonlySet<{ readonly remoteAddress: string; readonly state: string }>;
}

/** A longer listing is of no use, and it is written in one piece. */
const CONNECTIONS_LISTED_MAX = 1000;

/** Answers `stats <subject>`: from this node's memory, as of now. */
export function writeStatsReply(output: Output, subject: string, sources: StatsSources): void {
  const reply = replyTo(subject, sources);
  if (Buffer.isBuffer(reply)) output.bytes(reply);
  else writeStats(output, reply);
}

function replyTo(subject: string, sources: StatsSources): readonly Stat[] | Buffer {
  const [topic = '', argument = ''] = subject.split(' ').filter((word) => word !== '');
  switch (topic) {
    case '':
      return generalStats(sources);
    case 'settings':
      return settingsStats(sources);
    case 'items':
      return itemsStats(sources);
    case 'slabs':
      return slabsStats(sources);
    case 'sizes':
      return [['sizes_status', 'disabled']];
    case 'conns':
      return connectionStats(sources);
    case 'reset':
      Object.assign(sources.counters, newCounters());
      return RESET;
    case 'detail':
      return detailReply(argument);
    default:
      return ERROR;
  }
}

/** Prefixes of keys are not counted: switching that on and off changes nothing, and the dump is empty. */
function detailReply(argument: string): Buffer {
  if (argument === 'on' || argument === 'off') return OK;
  return argument === 'dump' ? END : BAD_STATS_DETAIL;
}

function generalStats({
  clock,
  startedAtMs,
  version,
  storeBytesMax,
  limits,
  replica,
  counters,
  watchers,
  connections,
}: StatsSources): Stat[] {
  const status = replica.status();
  const cpu = process.cpuUsage();
  const {
    total_connections,
    rejected_connections,
    bytes_read,
    bytes_written,
    store_too_large,
    store_no_memory,
    ...rest
  } = counters;
  return [
    ['pid', process.pid],
    ['uptime', Math.floor((clock.monotonicMs() - startedAtMs) / 1000)],
    ['time', Math.floor(clock.wallMs() / 1000)],
    ['version', PROTOCOL_VERSION],
    ['raftkv_version', version],
    ['pointer_size', 64],
    ['rusage_user', seconds(cpu.user)],
    ['rusage_system', seconds(cpu.system)],
    ['max_connections', limits.connectionsMax],
    ['curr_connections', connections.size],
    ['total_connections', total_connections],
    ['rejected_connections', rejected_connections],
    ['connection_structures', connections.size],
    ...Object.entries(rest),
    ['log_watchers', watchers.size],
    // An item whose time has come or that was flushed is gone for a get: it counts as a plain miss.
    ['get_expired', 0],
    ['get_flushed', 0],
    ['store_too_large', store_too_large],
    ['store_no_memory', store_no_memory],
    ['bytes_read', bytes_read],
    ['bytes_written', bytes_written],
    ['limit_maxbytes', storeBytesMax],
    ['accepting_conns', connections.size < limits.connectionsMax ? 1 : 0],
    ['listen_disabled_num', 0],
    ['threads', 1],
    ['bytes', status.storeBytes],
    ['curr_items', status.items],
    ['total_items', status.totalItems],
    // Nothing is ever thrown out to make room.
    ['evictions', 0],
    ['reclaimed', 0],
    ['node_id', status.nodeId],
    ['role', status.role],
    ['term', status.term],
    ['leader', status.leader],
    ['commit_index', status.commitIndex],
    ['applied_index', status.appliedIndex],
    ['last_log_index', status.lastLogIndex],
  ];
}

function seconds(microseconds: number): string {
  return (microseconds / 1_000_000).toFixed(6);
}

function settingsStats({ host, port, storeBytesMax, limits, authenticates }: StatsSources): Stat[] {
  return [
    ['maxbytes', storeBytesMax],
    ['maxconns', limits.connectionsMax],
    ['tcpport', port],
    ['udpport', 0],
    ['inter', host],
    ['verbosity', 0],
    ['oldest', 0],
    ['evictions', 'off'],
    ['domain_socket', 'NULL'],
    ['shutdown_command', 'no'],
    ['num_threads', 1],
    ['stat_key_prefix', ':'],
    ['detail_enabled', 'no'],
    ['cas_enabled', 'yes'],
    ['tcp_backlog', limits.backlogMax],
    ['binding_protocol', 'ascii'],
    ['auth_enabled_sasl', 'no'],
    ['auth_enabled_ascii', authenticates ? 'yes' : 'no'],
    ['item_size_max', limits.itemBytesMax],
    ['maxconns_fast', 'yes'],
    ['flush_enabled', 'yes'],
    ['dump_enabled', 'yes'],
    ['idle_timeout', Math.ceil(limits.connectionIdleMsMax / 1000)],
    ['track_sizes', 'no'],
  ];
}

/** All items are of one class. */
function itemsStats({ replica }: StatsSources): Stat[] {
  const { items } = replica.status();
  return items === 0 ? [] : [['items:1:number', items]];
}

/** An exporter that finds a class without its counters takes the whole server for down. */
function slabsStats({ replica, counters }: StatsSources): Stat[] {
  const { items, storeBytes } = replica.status();
  if (items === 0)
    return [
      ['active_slabs', 0],
      ['total_malloced', 0],
    ];
  const { get_hits, cmd_set, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits } = counters;
  const counted = { get_hits, cmd_set, delete_hits, incr_hits, decr_hits, cas_hits, cas_badval, touch_hits };
  return [
    ['1:used_chunks', items],
    ['1:mem_requested', storeBytes],
    ...Object.entries(counted).map(([name, value]): Stat => [`1:${name}`, value]),
    ['active_slabs', 1],
    ['total_malloced', storeBytes],
  ];
}

function connectionStats({ connections, host, port }: StatsSources): Stat[] {
  const stats: Stat[] = [];
  let number = 0;
  for (const { remoteAddress, state } of connections) {
    if (number === CONNECTIONS_LISTED_MAX) break;
    number++;
    stats.push([`${number}:addr`, `tcp:${remoteAddress}`]);
    stats.push([`${number}:listen_addr`, `tcp:${host}:${port}`]);
    stats.push([`${number}:state`, state]);
  }
  return stats;
}
