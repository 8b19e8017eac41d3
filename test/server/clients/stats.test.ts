import { describe, expect, it } from 'vitest';
import { newClient, serveStore } from '../../support/client-port.ts';
import { converse } from '../../support/text-client.ts';

function statsOf(text: string): Record<string, string> {
  const lines = text.split('\r\n').filter((line) => line.startsWith('STAT '));
  return Object.fromEntries(lines.map((line) => [line.split(' ', 2)[1], line.split(' ').slice(2).join(' ')]));
}

/** Those that dashboards and client libraries read. */
const EXPECTED_NAMES =
  `pid uptime time version pointer_size rusage_user rusage_system curr_items total_items bytes bytes_read
  bytes_written curr_connections total_connections connection_structures cmd_get cmd_set cmd_flush cmd_touch get_hits
  get_misses get_expired get_flushed delete_hits delete_misses incr_hits incr_misses decr_hits decr_misses cas_hits
  cas_misses cas_badval touch_hits touch_misses auth_cmds auth_errors evictions reclaimed limit_maxbytes threads
  log_watchers log_watcher_skipped log_watcher_sent accepting_conns listen_disabled_num max_connections rejected_connections store_too_large raftkv_version node_id role
  term leader commit_index applied_index last_log_index`.split(/\s+/);

describe('stats', () => {
  it('has every name that tools rely on', async () => {
    const { port } = await serveStore();
    const stats = statsOf(await converse(port, 'stats\r\n'));
    expect(Object.keys(stats)).toEqual(expect.arrayContaining(EXPECTED_NAMES));
    expect(stats).toMatchObject({ version: '1.6.45', raftkv_version: '9.8.7', role: 'leader', node_id: '1' });
    expect(stats['pid']).toBe(String(process.pid));
  });

  it('counts in its one class of slabs what exporters ask of each', async () => {
    const { port } = await serveStore();
    await converse(port, 'set a 0 0 1\r\n5\r\nget a\r\ntouch a 0\r\nincr a 1\r\ncas a 0 0 1 999\r\n7\r\n');
    expect(statsOf(await converse(port, 'stats slabs\r\n'))).toMatchObject({
      '1:used_chunks': '1',
      '1:get_hits': '1',
      '1:cmd_set': '2',
      '1:delete_hits': '0',
      '1:incr_hits': '1',
      '1:decr_hits': '0',
      '1:cas_hits': '0',
      '1:cas_badval': '1',
      '1:touch_hits': '1',
      active_slabs: '1',
    });
  });

  it('counts what the clients of this node did', async () => {
    const { port } = await serveStore({ itemBytesMax: 1000 });
    await converse(
      port,
      [
        'set a 0 0 1\r\n5\r\nset b 0 0 1 noreply\r\n5\r\nget a b c\r\ngets a\r\n',
        'delete b\r\ndelete b\r\nincr a 1\r\nincr x 1\r\ndecr a 1\r\ndecr x 1\r\n',
        'cas a 0 0 1 999\r\n7\r\ncas x 0 0 1 1\r\n7\r\ntouch a 0\r\ntouch x 0\r\ngat 0 a x\r\n',
        `set big 0 0 2000\r\n${'x'.repeat(2000)}\r\nadd big 0 0 2000\r\n${'x'.repeat(2000)}\r\n`,
      ].join(''),
    );
    const stats = statsOf(await converse(port, 'stats\r\n'));
    expect(stats).toMatchObject({
      cmd_get: '6',
      get_hits: '4',
      get_misses: '2',
      delete_hits: '1',
      delete_misses: '1',
      incr_hits: '1',
      incr_misses: '1',
      decr_hits: '1',
      decr_misses: '1',
      cas_badval: '1',
      cas_misses: '1',
      cas_hits: '0',
      cmd_touch: '4',
      touch_hits: '2',
      touch_misses: '2',
      store_too_large: '2',
      total_connections: '2',
      curr_connections: '1',
      curr_items: '1',
    });
    expect(Number(stats['bytes_read'])).toBeGreaterThan(4000);
    const reset = statsOf(await converse(port, 'stats reset\r\nstats\r\n'));
    expect(reset).toMatchObject({ cmd_get: '0', get_hits: '0', curr_items: '1' });
  });

  it('answers every topic as memcached does', async () => {
    const { port } = await serveStore();
    expect(await converse(port, 'stats items\r\n')).toBe('END\r\n');
    expect(await converse(port, 'stats reset\r\n')).toBe('RESET\r\n');
    expect(await converse(port, 'stats detail on\r\nstats detail dump\r\nstats detail off\r\n')).toBe(
      'OK\r\nEND\r\nOK\r\n',
    );
    expect(await converse(port, 'stats detail\r\n')).toBe('CLIENT_ERROR usage: stats detail on|off|dump\r\n');
    expect(await converse(port, 'stats sizes\r\n')).toBe('STAT sizes_status disabled\r\nEND\r\n');
    expect(await converse(port, 'stats bogus\r\nstats noreply\r\n')).toBe('ERROR\r\nERROR\r\n');
    expect(await converse(port, 'set a 0 0 1\r\nx\r\nstats items\r\n')).toBe(
      'STORED\r\nSTAT items:1:number 1\r\nEND\r\n',
    );
    expect(statsOf(await converse(port, 'stats slabs\r\n'))).toMatchObject({ active_slabs: '1', '1:used_chunks': '1' });
    expect(statsOf(await converse(port, 'stats settings\r\n'))).toMatchObject({
      maxconns: '16384',
      item_size_max: '1048576',
      tcpport: String(port),
      evictions: 'off',
    });
  });

  it('lists the connections', async () => {
    const { port } = await serveStore();
    const client = await newClient(port);
    client.send('stats conns\r\n');
    const stats = statsOf(await client.reply('END\r\n'));
    expect(stats['1:addr']).toBe(`tcp:127.0.0.1:${client.socket.localPort}`);
    expect(stats['1:listen_addr']).toBe(`tcp:127.0.0.1:${port}`);
  });
});
