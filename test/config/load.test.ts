import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import { findNode, type LoadOptions, loadConfig } from '../../src/config/load.ts';

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'raftkv-config-'));
});
afterAll(() => rmSync(folder, { recursive: true }));

const node = (id: number, changes: object = {}) => ({
  id,
  host: '127.0.0.1',
  clientPort: 11_000 + id,
  peerPort: 12_000 + id,
  adminPort: 13_000 + id,
  ...changes,
});
const valid = { cluster: 'demo', nodes: [node(1), node(2), node(3)] };

type Extra = Partial<Omit<LoadOptions, 'file'>>;

function load(content: unknown, extra: Extra = {}) {
  const file = join(folder, 'cluster.json');
  writeFileSync(file, typeof content === 'string' ? content : JSON.stringify(content));
  return loadConfig({ file, environment: {}, ...extra });
}

function failure(content: unknown, extra: Extra = {}): RaftkvError {
  try {
    load(content, extra);
  } catch (error) {
    if (error instanceof RaftkvError) return error;
    throw error;
  }
  throw new Error('the configuration was accepted');
}

/** The listed problems, one per line. */
const problems = (content: unknown, extra: Extra = {}) =>
  failure(content, extra)
    .message.split('\n')
    .slice(1)
    .map((line) => line.trim());

describe('a configuration that is right', () => {
  it('has every default filled in', () => {
    const { config, warnings } = load(valid);
    expect(warnings).toEqual([]);
    expect(config).toMatchObject({
      cluster: 'demo',
      dataDir: join(folder, 'data'),
      heartbeatIntervalMs: 50,
      electionTimeoutMs: 300,
      requestTimeoutMs: 10_000,
      walSegmentBytes: 64 * 1024 * 1024,
      snapshotLogBytes: 64 * 1024 * 1024,
      logLevel: 'info',
      limits: { itemBytesMax: 1024 * 1024, storeBytesMax: 1024 ** 3, pendingWriteBytesMax: 64 * 1024 * 1024 },
    });
  });

  it('finds authFile beside the file, and one from the environment in the working directory', () => {
    expect(load(valid).config).not.toHaveProperty('authFile');
    expect(load({ ...valid, authFile: 'passwords' }).config.authFile).toBe(join(folder, 'passwords'));
    const environment = { RAFTKV_AUTH_FILE: 'passwords' };
    expect(load(valid, { environment }).config.authFile).toBe(resolve('passwords'));
  });

  it('has tls with every port mutual, and its files beside itself', () => {
    const { config } = load({ ...valid, tls: { ca: 'ca.crt', cert: '/etc/node-{id}.crt', key: 'k' } });
    expect(config.tls).toEqual({
      ca: join(folder, 'ca.crt'),
      cert: '/etc/node-{id}.crt',
      key: join(folder, 'k'),
      clients: 'mutual',
      admin: 'mutual',
      peers: 'mutual',
    });
  });

  it.each([
    [{ ca: 'a', cert: 'b' }, 'tls.key: is missing; it must be the path of a file'],
    [{ ca: 'a', cert: 'b', key: 'c', peer: 'plain' }, 'tls.peer: is unknown; did you mean peers?'],
    [{ ca: 'a', cert: 'b', key: 'c', peers: 'encrypted' }, 'tls.peers: must be one of mutual, plain, not "encrypted"'],
    [{ ca: 'a', cert: 'b', key: 'c', clientKey: 'd' }, 'tls: must have both clientCert and clientKey, or neither'],
  ])('refuses tls %j', (tls, problem) => {
    expect(problems({ ...valid, tls })).toEqual([problem]);
  });

  it.each([
    ['connectionIdleMsMax', 0, 604_800_000],
    ['unsentBytesMax', 4096, 1024 ** 3],
    ['multiGetLineBytesMax', 4096, 64 * 1024 ** 2],
    ['watchersMax', 0, 1000],
    ['watchedBytesMax', 4096, 1024 ** 3],
  ])('takes limits.%s from %i to %i, and not one beyond', (name, min, max) => {
    for (const value of [min, max])
      expect(load({ ...valid, limits: { [name]: value } }).config.limits).toHaveProperty(name, value);
    for (const value of [min - 1, max + 1]) {
      expect(problems({ ...valid, limits: { [name]: value } })).toEqual([
        expect.stringContaining(`limits.${name}: must be`),
      ]);
    }
  });

  it('warns of passwords that cross a network in the open', () => {
    const nodes = [node(1, { host: '10.0.0.1' }), node(2), node(3)];
    const warning = [expect.stringMatching(/^authFile: without tls for clients/)];
    const tls = { ca: 'a', cert: 'b', key: 'c' };
    expect(load({ ...valid, nodes, authFile: 'p' }).warnings).toEqual(warning);
    expect(load({ ...valid, nodes, authFile: 'p', tls: { ...tls, clients: 'plain' } }).warnings).toEqual(warning);
    expect(load({ ...valid, nodes, authFile: 'p', tls }).warnings).toEqual([]);
    expect(load({ ...valid, authFile: 'p' }).warnings).toEqual([]);
  });

  it('is frozen to the depth', () => {
    const { config } = load(valid);
    for (const part of [config, config.nodes, config.nodes[0], config.limits]) expect(Object.isFrozen(part)).toBe(true);
  });

  it('gives the node of an id', () => {
    const { config } = load(valid);
    expect(findNode(config, 2)?.clientPort).toBe(11_002);
    expect(findNode(config, 9)).toBeUndefined();
  });

  it.each(['cluster.json', 'examples/one-node.json', 'examples/five-nodes.json', 'examples/secure.json'])(
    '%s, as shipped, loads',
    (file) => {
      const { config, warnings } = loadConfig({ file: resolve(import.meta.dirname, '../..', file), environment: {} });
      expect(warnings).toEqual([]);
      expect(config.dataDir).toMatch(/[/\\]data/);
    },
  );

  it('may begin with a byte order mark', () => {
    expect(load(`\uFEFF${JSON.stringify(valid)}`).config.cluster).toBe('demo');
  });

  it.each(['localhost', 'node-1.example.org', '::1', '10.0.0.1', 'raft_1'])('may name the host %s', (host) => {
    expect(load({ cluster: 'demo', nodes: [node(1, { host })] }).config.nodes[0]?.host).toBe(host);
  });
});

describe('precedence', () => {
  it('is default, file, environment, flag', () => {
    const file = { ...valid, logLevel: 'warn' };
    const environment = { RAFTKV_LOG_LEVEL: 'error' };
    expect(load(valid).config.logLevel).toBe('info');
    expect(load(file).config.logLevel).toBe('warn');
    expect(load(file, { environment }).config.logLevel).toBe('error');
    expect(load(file, { environment, flags: { logLevel: 'debug' } }).config.logLevel).toBe('debug');
  });

  it('takes a data folder of the file from the folder of the file, and any other from the working directory', () => {
    const file = { ...valid, dataDir: 'd' };
    expect(load(file).config.dataDir).toBe(join(folder, 'd'));
    expect(load(file, { environment: { RAFTKV_DATA_DIR: 'e' } }).config.dataDir).toBe(resolve('e'));
    expect(load(file, { flags: { dataDir: 'f' } }).config.dataDir).toBe(resolve('f'));
    expect(load(file, { flags: { dataDir: '/abs' } }).config.dataDir).toBe('/abs');
  });

  it('lets a flag mend what is wrong in the environment', () => {
    const { config } = load(valid, { environment: { RAFTKV_LOG_LEVEL: 'loud' }, flags: { logLevel: 'debug' } });
    expect(config.logLevel).toBe('debug');
  });

  it('sets one limit from the environment and leaves the others of the file', () => {
    const environment = { RAFTKV_LIMITS_ITEM_BYTES_MAX: '2048' };
    const { config } = load({ ...valid, limits: { connectionsMax: 7 } }, { environment });
    expect(config.limits).toMatchObject({ itemBytesMax: 2048, connectionsMax: 7 });
  });
});

describe('what is wrong is listed with its place', () => {
  const withNode = (changes: object) => ({ ...valid, nodes: [node(1), node(2, changes), node(3)] });
  it.each<[what: string, content: unknown, problem: RegExp]>([
    ['not an object', [], /^must be an object with cluster and nodes, not \[\]$/],
    ['no cluster', { nodes: valid.nodes }, /^cluster: is missing; it must be 1 to 64 letters/],
    [
      'a bad cluster name',
      { ...valid, cluster: 'my cluster' },
      /^cluster: must be 1 to 64 letters.*, not "my cluster"$/,
    ],
    ['a long cluster name', { ...valid, cluster: 'x'.repeat(65) }, /^cluster: must be 1 to 64/],
    ['no nodes', { cluster: 'demo' }, /^nodes: is missing; it must be a list of nodes$/],
    ['an empty list of nodes', { ...valid, nodes: [] }, /^nodes: must name at least one node, not \[\]$/],
    [
      'too many nodes',
      { ...valid, nodes: Array.from({ length: 16 }, (_, i) => node(i + 1)) },
      /^nodes: must name at most 15/,
    ],
    [
      'a node that is no object',
      { ...valid, nodes: [node(1), 7, node(3)] },
      /^nodes\[1\]: must be an object.*, not 7$/,
    ],
    [
      'a missing port',
      withNode({ peerPort: undefined }),
      /^nodes\[1\]\.peerPort: is missing; it must be a port number from 1/,
    ],
    [
      'a port of a wrong type',
      withNode({ clientPort: '11211' }),
      /^nodes\[1\]\.clientPort: must be a port number.*, not "11211"$/,
    ],
    [
      'a port out of range',
      withNode({ adminPort: 65_536 }),
      /^nodes\[1\]\.adminPort: must be .* from 1 to 65535, not 65536$/,
    ],
    ['a fraction', withNode({ id: 1.5 }), /^nodes\[1\]\.id: must be a whole number from 1 to 65535, not 1\.5$/],
    ['node 0', withNode({ id: 0 }), /^nodes\[1\]\.id: must be a whole number from 1 /],
    ['a bad host', withNode({ host: 'a b' }), /^nodes\[1\]\.host: must be a host name or an IP address, not "a b"$/],
    ['half an address', withNode({ host: '10.0.0' }), /^nodes\[1\]\.host: must be a host name or an IP address/],
    ['a duplicate id', withNode({ id: 1 }), /^nodes\[1\]\.id: is 1, the same as nodes\[0\]\.id$/],
    [
      'a duplicate address',
      withNode({ clientPort: 11_001 }),
      /^nodes\[1\]\.clientPort: 127\.0\.0\.1:11001 is already used by nodes\[0\]\.clientPort$/,
    ],
    [
      'an address under two kinds',
      withNode({ peerPort: 13_003 }),
      /^nodes\[2\]\.adminPort: 127\.0\.0\.1:13003 is already used by nodes\[1\]\.peerPort$/,
    ],
    [
      'an address under two names',
      withNode({ host: 'LocalHost', clientPort: 11_001 }),
      /^nodes\[1\]\.clientPort: LocalHost:11001 is already used/,
    ],
    [
      'one port twice in a node',
      withNode({ clientPort: 5, peerPort: 5 }),
      /^nodes\[1\]\.peerPort: 127\.0\.0\.1:5 is already used by nodes\[1\]\.clientPort$/,
    ],
    [
      'an unknown field',
      { ...valid, electionTimeout: 5 },
      /^electionTimeout: is unknown; did you mean electionTimeoutMs\?$/,
    ],
    ['an unknown field near nothing', { ...valid, zebra: 5 }, /^zebra: is unknown$/],
    [
      'an unknown field of a node',
      withNode({ port: 5, client_port: 1 }),
      /^nodes\[1\]\.client_port: is unknown; did you mean clientPort\?$/,
    ],
    [
      'an unknown limit',
      { ...valid, limits: { itemByteMax: 5 } },
      /^limits\.itemByteMax: is unknown; did you mean itemBytesMax\?$/,
    ],
    ['limits that are no object', { ...valid, limits: 5 }, /^limits: must be an object, not 5$/],
    [
      'a bad log level',
      { ...valid, logLevel: 'loud' },
      /^logLevel: must be one of debug, info, warn, error, not "loud"$/,
    ],
    ['an empty data folder', { ...valid, dataDir: '' }, /^dataDir: must be the path of a folder, not ""$/],
    [
      'a hasty election',
      { ...valid, electionTimeoutMs: 149 },
      /^electionTimeoutMs: must be at least 3 times heartbeatIntervalMs \(150\), not 149/,
    ],
    [
      'a short segment',
      { ...valid, walSegmentBytes: 1024 },
      /^walSegmentBytes: must be a whole number of bytes, in steps of 4096, from 33554432 /,
    ],
    [
      'a segment of broken sectors',
      { ...valid, walSegmentBytes: 64_000_001 },
      /^walSegmentBytes: must be .*steps of 4096,.*, not 64000001$/,
    ],
    [
      'snapshots all the time',
      { ...valid, snapshotLogBytes: 1024 ** 2 - 1 },
      /^snapshotLogBytes: must be a whole number of bytes from 1048576 to 68719476736 \(less would write snapshots/,
    ],
    [
      'an item too large for the store',
      { ...valid, limits: { storeBytesMax: 1024 * 1024 } },
      /^limits\.storeBytesMax: must be at least 2 times/,
    ],
    [
      'an item too large for the queue',
      { ...valid, limits: { pendingWriteBytesMax: 1024 * 1024 } },
      /^limits\.pendingWriteBytesMax: must be/,
    ],
  ])('%s', (_what, content, problem) => {
    expect(problems(content)).toContainEqual(expect.stringMatching(problem));
    expect(failure(content).code).toBe('CONFIG_INVALID');
  });

  it('all of it at once, what fields say of each other included', () => {
    const content = {
      cluster: '?',
      nodes: [node(1), node(1, { host: 5 }), node(3, { adminPort: 11_001 })],
      heartbeatIntervalMs: 200,
    };
    expect(problems(content).map((line) => line.split(':')[0])).toEqual([
      'cluster',
      'nodes[1].host',
      'nodes[1].id',
      'nodes[2].adminPort',
      'electionTimeoutMs',
    ]);
  });

  it('under the name of the variable or flag that set it', () => {
    const environment = { RAFTKV_ELECTION_TIMEOUT_MS: '5s', RAFTKV_LIMITS_CONNECTIONS_MAX: '-1' };
    expect(problems(valid, { environment, flags: { dataDir: '' } })).toEqual([
      expect.stringMatching(/^--data-dir \(dataDir\): must be the path of a folder, not ""$/),
      expect.stringMatching(/^RAFTKV_ELECTION_TIMEOUT_MS \(electionTimeoutMs\): must be a whole number.*, not "5s"$/),
      expect.stringMatching(/^RAFTKV_LIMITS_CONNECTIONS_MAX \(limits\.connectionsMax\): must be.*, not -1$/),
    ]);
  });
});

describe('a file that cannot be used', () => {
  it('and does not exist is CONFIG_NOT_FOUND with a remedy', () => {
    try {
      loadConfig({ file: join(folder, 'none.json'), environment: {} });
      expect.unreachable();
    } catch (error) {
      expect(error).toMatchObject({ code: 'CONFIG_NOT_FOUND', remedy: expect.stringContaining('--config') });
      expect(String(error)).toContain('none.json');
    }
  });

  it('and is a folder is CONFIG_INVALID', () => {
    expect(() => loadConfig({ file: folder, environment: {} })).toThrow(/cannot be read: it is a folder/);
  });

  it('and is no JSON is CONFIG_INVALID with line and column', () => {
    expect(failure('{\n  "cluster": "demo",\n  }').message).toMatch(
      /is not valid JSON: line 3, column 3: expected a name in double quotes, found "}"$/,
    );
  });
});

describe('warnings', () => {
  it.each([
    [2, 'nodes: 2 nodes survive the loss of 0, no more than 1 do; an odd number is better: 1 or 3'],
    [4, 'nodes: 4 nodes survive the loss of 1, no more than 3 do; an odd number is better: 3 or 5'],
  ])('say that %i nodes are no better than one fewer', (count, warning) => {
    const nodes = Array.from({ length: count }, (_, i) => node(i + 1));
    expect(load({ ...valid, nodes }).warnings).toEqual([warning]);
  });

  it('name a host that no other node can dial, unless the node is alone', () => {
    const everywhere = { host: '0.0.0.0' };
    expect(load({ ...valid, nodes: [node(1, everywhere)] }).warnings).toEqual([]);
    expect(load({ ...valid, nodes: [node(1), node(2, everywhere), node(3)] }).warnings).toEqual([
      expect.stringMatching(/^nodes\[1\]\.host: other machines cannot dial 0\.0\.0\.0/),
    ]);
  });

  it('name a request timeout that ends before an election does', () => {
    expect(load({ ...valid, requestTimeoutMs: 500 }).warnings).toEqual([
      expect.stringMatching(/^requestTimeoutMs: 500 is less than twice/),
    ]);
  });

  it('name an unknown variable and the nearest known one', () => {
    const environment = { RAFTKV_LOGLEVEL: 'x', RAFTKV_CONFIG: 'f', RAFTKV_ID: '1', OTHER: 'y', RAFTKV_QQQ: '' };
    expect(load(valid, { environment }).warnings).toEqual([
      'environment: RAFTKV_LOGLEVEL is unknown and has no effect; did you mean RAFTKV_LOG_LEVEL?',
      'environment: RAFTKV_QQQ is unknown and has no effect',
    ]);
  });
});
