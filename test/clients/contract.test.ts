import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ConnectionOptions } from 'node:tls';
import { Memcache } from 'memcache';
import { MemcacheClient } from 'memcache-client';
import Memcached from 'memcached';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type Cluster, showLogOfFailure, startCluster } from '../support/cluster.ts';
import { PASSWORD, USER } from '../support/secure-cluster.ts';
import { adaptMemcache, adaptMemcacheClient, adaptMemcached } from './adapters.ts';
import { type ClientTraits, type ClientUnderTest, itKeepsTheContract } from './contract.ts';

/**
 * npm's clients against clusters that ask them for nothing, for certificates or for a password. None of them knows of
 * memcached's login in the text protocol. It is a `set` like any other, though, so that a client with a single
 * connection can make it its first call.
 */

const TOKEN = `${USER} ${PASSWORD}`;

interface Access {
  readonly what: string;
  /** TLS at every port and a password, unless the settings say otherwise. */
  readonly secure: boolean;
  readonly settings: Readonly<Record<string, unknown>>;
  readonly password: boolean;
  readonly clients: readonly Guest[];
}

interface Guest {
  readonly name: string;
  readonly traits: ClientTraits;
  /** With one connection only where it has to log in. */
  open(server: string, tls: ConnectionOptions, password: boolean): ClientUnderTest;
}

/**
 * The clients close a connection, or give a request up, after 5 s. A slow machine may take that long, and who has logged
 * in would have to do so again.
 */
const LATE_MS = 120_000;
const timing = { connectTimeout: LATE_MS, cmdTimeout: LATE_MS };

const memcacheClient: Guest = {
  name: 'memcache-client',
  traits: { bytes: true },
  open: (server, tls, password) =>
    adaptMemcacheClient(
      new MemcacheClient({ ...timing, server: password ? { server, maxConnections: 1 } : { server }, tls }),
    ),
};
const plainMemcacheClient: Guest = {
  ...memcacheClient,
  open: (server, _tls, password) =>
    adaptMemcacheClient(
      new MemcacheClient({ ...timing, server: password ? { server, maxConnections: 1 } : { server } }),
    ),
};
const memcached: Guest = {
  name: 'memcached',
  traits: { bytes: true },
  open: (server) => adaptMemcached(new Memcached(server, { poolSize: 1, timeout: LATE_MS, idle: LATE_MS })),
};
const memcache: Guest = {
  name: 'memcache',
  traits: { bytes: false },
  open: (server) => adaptMemcache(new Memcache({ nodes: [server], timeout: LATE_MS })),
};

const tls = {
  ca: 'certs/ca.crt',
  cert: 'certs/node-{id}.crt',
  key: 'certs/node-{id}.key',
  clientCert: 'certs/client.crt',
  clientKey: 'certs/client.key',
};
const accesses: readonly Access[] = [
  {
    what: 'nothing',
    secure: false,
    settings: {},
    password: false,
    clients: [plainMemcacheClient, memcached, memcache],
  },
  { what: 'certificates', secure: true, settings: { authFile: undefined }, password: false, clients: [memcacheClient] },
  { what: 'certificates and a password', secure: true, settings: {}, password: true, clients: [memcacheClient] },
  {
    what: 'a password',
    secure: true,
    settings: { tls: { ...tls, clients: 'plain' } },
    password: true,
    clients: [plainMemcacheClient, memcached, memcache],
  },
];

describe.concurrent.each(accesses)('a cluster that asks its clients for $what', (access) => {
  const { secure, settings, password, clients } = access;
  let cluster: Cluster;
  showLogOfFailure(() => cluster);
  beforeAll(async () => {
    cluster = await startCluster({ secure, settings, inProcess: true });
  });
  afterAll(() => cluster?.stop());

  const identity = (): ConnectionOptions => {
    if (!secure) return {};
    const pem = (name: string) => readFileSync(join(cluster.folder, 'certs', name));
    return { ca: pem('ca.crt'), cert: pem('client.crt'), key: pem('client.key') };
  };
  const open = (guest: Guest, id: number): ClientUnderTest => {
    const { host, clientPort } = cluster.node(id);
    return guest.open(`${host}:${clientPort}`, identity(), password);
  };

  describe.concurrent.each(clients)('$name', (guest) => {
    describe.each([1, 2, 3])('through node %i', (id) => {
      let client: ClientUnderTest;
      beforeAll(async () => {
        client = open(guest, id);
        if (password) expect(await client.set('login', TOKEN)).toBe(true);
      });
      afterAll(() => client?.close());
      itKeepsTheContract(() => client, `${guest.name}${id}`, guest.traits);
    });

    it.runIf(password)('gets nothing without the password', async () => {
      const unknown = open(guest, 1);
      const stored = await unknown.set('a', 'x').catch(() => false);
      const found = await unknown.get('a').catch(() => null);
      expect([stored, found]).toEqual([false, null]);
      unknown.close();
    });
  });
});
