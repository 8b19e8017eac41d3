import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Clock } from '../../base/clock.ts';
import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { Backup, Replica } from '../../replica/types.ts';
import { failure, failureOf, send } from './answers.ts';

/**
 * `GET /snapshot`: everything that had been acknowledged before the request, as one file.
 *
 *   backup ─▶ a piece is read ─▶ socket ─▶ … waits while the other end does not read ─▶ released, however it ends
 */

/** Each keeps a snapshot file, and with it room on the disk, until it is read. */
const DOWNLOADS_MAX = 2;
/** One piece in memory per download. */
const PIECE_BYTES = 256 * 1024;
/** A reader that takes nothing for this long is gone, and must not keep the file. */
const STALLED_MS_MAX = 60_000;

export interface DownloadOptions {
  readonly cluster: string;
  readonly clock: Clock;
  readonly logger: Logger;
}

export type Downloads = (
  door: Pick<Replica, 'backup'>,
  request: IncomingMessage,
  response: ServerResponse,
) => Promise<void>;

export function createDownloads({ cluster, clock, logger }: DownloadOptions): Downloads {
  let running = 0;
  return async (door, request, response) => {
    if (running >= DOWNLOADS_MAX) {
      const answer = failure(
        429,
        `too many snapshot downloads: ${running} are running on this node`,
        'Try again later, or ask another node.',
      );
      return send(request, response, answer);
    }
    running++;
    try {
      const backup = await door.backup();
      try {
        if (response.destroyed) return;
        writeHead(response, backup, cluster);
        await copy(backup, response, clock);
      } finally {
        backup.release();
      }
    } catch (error) {
      if (response.destroyed) return;
      if (!response.headersSent)
        return send(request, response, failureOf(error instanceof RaftkvError ? 503 : 500, error));
      logger.warn({ err: error }, 'a snapshot download failed');
      // Abort the response, so that no client takes the part for the whole.
      response.destroy();
    } finally {
      running--;
    }
  };
}

function writeHead(response: ServerResponse, { info }: Backup, cluster: string): void {
  response.writeHead(200, {
    'content-type': 'application/octet-stream',
    'content-length': info.byteLength,
    'content-disposition': `attachment; filename="${cluster}-${info.index}.snapshot"`,
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-raftkv-cluster': cluster,
    'x-raftkv-index': info.index,
    'x-raftkv-term': info.term,
  });
}

async function copy(backup: Backup, response: ServerResponse, clock: Clock): Promise<void> {
  const { byteLength } = backup.info;
  let offset = 0;
  while (offset < byteLength && !response.destroyed) {
    const piece = await backup.read(offset, Math.min(PIECE_BYTES, byteLength - offset));
    if (piece.length === 0) throw new Error(`the snapshot ends at byte ${offset} of ${byteLength}`);
    offset += piece.length;
    if (!response.write(piece)) await drained(response, clock);
  }
  response.end();
}

/** Resolves when the other end has read, or is gone. */
function drained(response: ServerResponse, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    if (response.destroyed) return resolve();
    const cancel = clock.after(STALLED_MS_MAX, () => response.destroy());
    const over = () => {
      cancel();
      response.off('drain', over);
      response.off('close', over);
      resolve();
    };
    response.once('drain', over);
    response.once('close', over);
  });
}
