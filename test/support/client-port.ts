import { onTestFinished } from 'vitest';
import { systemClock } from '../../src/base/clock.ts';
import { silentLogger } from '../../src/base/logger.ts';
import { type ClientPort, type ClientPortOptions, openClientPort } from '../../src/server/clients/client-port.ts';
import type { ClientLimits } from '../../src/server/clients/limits.ts';
import { FakeReplica } from './fake-replica.ts';
import { connectText, type TextClient } from './text-client.ts';

export interface ServedStore {
  readonly port: number;
  readonly server: ClientPort;
  readonly replica: FakeReplica;
}

/** A client port on a free port in front of a store of its own; gone after the test. */
export async function serveStore(
  limits: Partial<ClientLimits> = {},
  replica = new FakeReplica(),
  options: Partial<ClientPortOptions> = {},
): Promise<ServedStore> {
  const server = await openClientPort({
    host: '127.0.0.1',
    port: 0,
    clock: systemClock,
    logger: silentLogger,
    replica,
    version: '9.8.7',
    storeBytesMax: 1024 ** 3,
    limits: { lingerMsMax: 100, drainMsMax: 1000, ...limits },
    ...options,
  });
  onTestFinished(() => {
    replica.release();
    return server.stop();
  });
  return { port: server.port, server, replica };
}

/** A client that is gone after the test. */
export async function newClient(port: number): Promise<TextClient> {
  const client = await connectText(port);
  onTestFinished(() => client.destroy());
  return client;
}
