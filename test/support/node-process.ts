import { type ChildProcess, execFile, fork } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { isNodeMessage, type NodeMessage } from '../../src/cli/node/types.ts';

/**
 * One node as a process of its own: `node bin/raftkv.js node --id N`. The channel to it does two things: the node tells
 * of its events over it, and it ends with this process, so that no node outlives its test.
 */

const BIN = resolve(import.meta.dirname, '../../bin/raftkv.js');
const LOG_LINES_MAX = 20_000;
/** Only what never comes takes so long, however busy the machine is. */
const START_MS_MAX = 60_000;
const EXIT_MS_MAX = 60_000;

type EventKind = NodeMessage['kind'];

export interface NodeProcess {
  readonly id: number;
  readonly pid: number;
  isRunning(): boolean;
  /** Resolves when the event has come, now or earlier in this process's life; rejects where the process ends before. */
  event(kind: EventKind): Promise<void>;
  /** Calls back for each event from now on. */
  onEvent(callback: (message: NodeMessage) => void): void;
  signal(signal: NodeJS.Signals): void;
  /** The exit code, or the name of the signal that ended it. */
  exited(): Promise<number | string>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

export function startNodeProcess(id: number, args: readonly string[], log: (line: string) => void): NodeProcess {
  const child = fork(BIN, ['node', '--id', `${id}`, ...args], { silent: true, execArgv: [] });
  running.add(child);
  const events = new EventEmitter().setMaxListeners(0);
  const seen = new Set<EventKind>();
  let lines = 0;
  let ended: number | string | null = null;
  for (const stream of [child.stdout, child.stderr]) {
    if (stream === null) continue;
    createInterface({ input: stream }).on('line', (line) => {
      if (lines++ < LOG_LINES_MAX) log(line);
    });
  }
  child.on('message', (message) => {
    if (!isNodeMessage(message)) return;
    seen.add(message.kind);
    events.emit('message', message);
    events.emit(message.kind);
  });
  // An error here is a message that could not be sent; the exit tells the rest.
  child.on('error', (error) => log(`test harness: ${error.message}`));
  child.once('exit', (code, signal) => {
    running.delete(child);
    ended = signal ?? code ?? 'unknown';
    log(`test harness: node ${id} (pid ${child.pid}) ended: ${ended}`);
    events.emit('ended');
  });
  const isRunning = () => ended === null;
  return {
    id,
    pid: child.pid ?? 0,
    isRunning,
    async event(kind) {
      if (seen.has(kind)) return;
      const signal = AbortSignal.timeout(START_MS_MAX);
      const both = new AbortController();
      const options = { signal: AbortSignal.any([signal, both.signal]) };
      const first = isRunning()
        ? await Promise.race([
            once(events, kind, options).then(() => kind),
            once(events, 'ended', options).then(() => 'ended'),
          ]).catch(() => 'timeout')
        : 'ended';
      both.abort();
      if (first === 'timeout') throw new Error(`node ${id}: no "${kind}" within ${START_MS_MAX} ms`);
      if (first === 'ended') throw new Error(`node ${id} ended (${ended}) before "${kind}"`);
    },
    onEvent: (callback) => void events.on('message', callback),
    signal: (signal) => void child.kill(signal),
    async exited() {
      if (ended === null) await once(events, 'ended', { signal: AbortSignal.timeout(EXIT_MS_MAX) });
      return ended ?? 'unknown';
    },
  };
}

export interface CommandResult {
  /** 0 done, 1 failure, 2 wrong usage. */
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command that takes longer hangs. */
const COMMAND_MS_MAX = 120_000;

/** `raftkv` with these arguments, to its end, whatever that is. */
export function runCommand(args: readonly string[]): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const child = execFile(process.execPath, [BIN, ...args], { timeout: COMMAND_MS_MAX }, (error, stdout, stderr) => {
      running.delete(child);
      const code = error === null ? 0 : error.code;
      if (typeof code === 'number') resolve({ code, stdout, stderr });
      else reject(new Error(`raftkv ${args.join(' ')}: ${error?.message} ${stdout} ${stderr}`));
    });
    running.add(child);
  });
}
