import { describe, expect, it } from 'vitest';
import { readEnvironment, VARIABLES } from '../../src/config/load.ts';

describe('the names of the environment', () => {
  it('derive from the fields, and are these', () => {
    expect(VARIABLES.map(({ name, path }) => `${name} ${path.join('.')}`)).toEqual([
      'RAFTKV_CLUSTER cluster',
      'RAFTKV_DATA_DIR dataDir',
      'RAFTKV_AUTH_FILE authFile',
      ...['CA', 'CERT', 'KEY'].map((name) => `RAFTKV_TLS_${name} tls.${name.toLowerCase()}`),
      'RAFTKV_TLS_CLIENT_CERT tls.clientCert',
      'RAFTKV_TLS_CLIENT_KEY tls.clientKey',
      'RAFTKV_TLS_CLIENTS tls.clients',
      'RAFTKV_TLS_ADMIN tls.admin',
      'RAFTKV_TLS_PEERS tls.peers',
      'RAFTKV_HEARTBEAT_INTERVAL_MS heartbeatIntervalMs',
      'RAFTKV_ELECTION_TIMEOUT_MS electionTimeoutMs',
      'RAFTKV_REQUEST_TIMEOUT_MS requestTimeoutMs',
      'RAFTKV_WAL_SEGMENT_BYTES walSegmentBytes',
      'RAFTKV_SNAPSHOT_LOG_BYTES snapshotLogBytes',
      'RAFTKV_LOG_LEVEL logLevel',
      'RAFTKV_LIMITS_ITEM_BYTES_MAX limits.itemBytesMax',
      'RAFTKV_LIMITS_STORE_BYTES_MAX limits.storeBytesMax',
      'RAFTKV_LIMITS_CONNECTIONS_MAX limits.connectionsMax',
      'RAFTKV_LIMITS_PENDING_WRITE_BYTES_MAX limits.pendingWriteBytesMax',
      'RAFTKV_LIMITS_CONNECTION_IDLE_MS_MAX limits.connectionIdleMsMax',
      'RAFTKV_LIMITS_UNSENT_BYTES_MAX limits.unsentBytesMax',
      'RAFTKV_LIMITS_MULTI_GET_LINE_BYTES_MAX limits.multiGetLineBytesMax',
      'RAFTKV_LIMITS_WATCHERS_MAX limits.watchersMax',
      'RAFTKV_LIMITS_WATCHED_BYTES_MAX limits.watchedBytesMax',
    ]);
  });

  it('turn into numbers only where a number is wanted', () => {
    const { settings } = readEnvironment({ RAFTKV_CLUSTER: '42', RAFTKV_REQUEST_TIMEOUT_MS: '42' });
    expect(settings.map(({ value }) => value)).toEqual(['42', 42]);
  });

  it('leave a text that is no plain number for the schema to refuse', () => {
    for (const text of ['', ' 5', '0x10', '1e3', '5s', 'NaN', 'Infinity']) {
      expect(readEnvironment({ RAFTKV_REQUEST_TIMEOUT_MS: text }).settings[0]?.value).toBe(text);
    }
  });
});
