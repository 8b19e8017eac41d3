import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { reservePorts } from '../support/ports.ts';
import { connectText } from '../support/text-client.ts';

/** The version of the memcached that is installed; null for none. */
export function installedMemcached(): string | null {
  const { stdout } = spawnSync('memcached', ['-V'], { encoding: 'utf8' });
  return /memcached (\S+)/.exec(stdout ?? '')?.[1] ?? null;
}

export interface RunningMemcached {
  readonly port: number;
  stop(): Promise<void>;
}

export async function startMemcached(): Promise<RunningMemcached> {
  const { ports, release } = await reservePorts(1);
  const [port = 0] = ports;
  const args = ['-l', '127.0.0.1', '-p', String(port), '-U', '0', '-t', '1', '-m', '64', '-o', 'no_modern'];
  if (process.getuid?.() === 0) args.push('-u', 'root');
  const child: ChildProcess = spawn('memcached', args, { stdio: 'ignore' });
  await listening(port, child);
  return {
    port,
    async stop() {
      release();
      if (child.exitCode !== null) return;
      const gone = once(child, 'exit');
      child.kill();
      await gone;
    },
  };
}

/** Nothing tells when memcached listens but that it does. */
async function listening(port: number, child: ChildProcess): Promise<void> {
  while (child.exitCode === null) {
    try {
      (await connectText(port)).destroy();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  }
  throw new Error('memcached did not start');
}
