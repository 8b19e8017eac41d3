import type { IncomingMessage, OutgoingHttpHeaders, ServerResponse } from 'node:http';
import { RaftkvError } from '../../base/errors.ts';

/** Helpers of all routes of the admin port: JSON answers, small request bodies, errors. */

export interface Answer {
  readonly status: number;
  readonly body: object;
  /** Besides those that every answer has. */
  readonly headers?: OutgoingHttpHeaders;
}

/** `body` of an answer that reports a failure. */
export interface FailureBody {
  /** For people. */
  readonly error: string;
  /** A code of `RaftkvError`, for programs; empty where the request itself was wrong. */
  readonly code: string;
  /** What the caller can do; may be empty. */
  readonly remedy: string;
}

export function failure(status: number, error: string, remedy = ''): Answer {
  return { status, body: { error, code: '', remedy } satisfies FailureBody };
}

export function failureOf(status: number, error: unknown): Answer {
  if (error instanceof RaftkvError) {
    return { status, body: { error: error.message, code: error.code, remedy: error.remedy } satisfies FailureBody };
  }
  return failure(status, error instanceof Error ? error.message : String(error));
}

export const STARTING = failure(503, 'this node is still recovering its log, or is stopping', 'Ask another node.');

export function send(request: IncomingMessage, response: ServerResponse, { status, body, headers }: Answer): void {
  const text = `${JSON.stringify(body)}\n`;
  response.writeHead(status, {
    ...headers,
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(text),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    // A body that is not read must not keep the connection open.
    ...(request.complete || !hasBody(request) ? {} : { connection: 'close' }),
  });
  response.end(request.method === 'HEAD' ? undefined : text);
}

function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0;
}

/** Null where it is longer than `bytesMax`; the rest is then not read. Rejects where the connection breaks. */
export function readBody(request: IncomingMessage, bytesMax: number): Promise<string | null> {
  return new Promise((resolve, reject) => {
    const chunks: Buffer[] = [];
    let bytes = 0;
    const take = (chunk: Buffer) => {
      bytes += chunk.length;
      if (bytes <= bytesMax) {
        chunks.push(chunk);
        return;
      }
      request.off('data', take);
      request.pause();
      resolve(null);
    };
    request.on('data', take);
    request.once('end', () => resolve(Buffer.concat(chunks).toString('utf8')));
    request.once('error', reject);
    request.once('close', () => reject(new Error('the connection was lost')));
  });
}
