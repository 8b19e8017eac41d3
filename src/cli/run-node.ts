import { RaftkvError } from '../base/errors.ts';
import { systemClock } from '../base/system-clock.ts';
import { findNode } from '../config/load.ts';
import { openAdminPort } from '../server/admin-port.ts';
import { RECOVERING } from '../server/readiness.ts';
import type { RunNode } from './node-types.ts';
import { readVersion } from './version.ts';

/** Puts one node together from its floors, and takes it apart again. */
export const runNode: RunNode = async (config, nodeId, { logger, onEvent }) => {
  const node = findNode(config, nodeId);
  if (node === undefined) throw new RaftkvError('CONFIG_INVALID', `the cluster has no node ${nodeId}`);
  const admin = await openAdminPort({
    host: node.host,
    port: node.adminPort,
    clock: systemClock,
    logger,
    identity: {
      version: readVersion(),
      cluster: config.cluster,
      nodeId,
      pid: process.pid,
      addresses: {
        client: `${node.host}:${node.clientPort}`,
        peer: `${node.host}:${node.peerPort}`,
        admin: `${node.host}:${node.adminPort}`,
      },
    },
    status: () => null,
    readiness: () => RECOVERING,
  });
  onEvent({ kind: 'listening' });
  return { stop: () => admin.close() };
};
