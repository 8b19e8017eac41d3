import { execFileSync } from 'node:child_process';
import * as fs from 'node:fs';
import { hostname } from 'node:os';
import { join } from 'node:path';
import type { LockFiles } from './held-lock.ts';
import type { LockOperation } from './protocol.ts';
import type { Place, ProcessState } from './record.ts';

/**
 * Accesses the lock folder and the processes of the machine. It needs neither file locks nor hard links of the file
 * system.
 */

/** Facts about the system that a process runs on. */
export interface SystemFacts {
  readonly pid: number;
  readonly host: string;
  readonly place: Place;
  /** When this process started; null if the system doesn't tell. */
  readonly started: string | null;
  /** @param pid the pid of a process in `place` */
  stateOf(pid: number): ProcessState;
}

export function systemFacts(): SystemFacts {
  const { pid } = process;
  const place = ownPlace();
  const own = place === null ? null : readStat(pid);
  const started = own?.kind === 'alive' ? own.started : null;
  return { pid, host: hostname(), place, started, stateOf };
}

function ownPlace(): Place {
  if (process.platform === 'darwin') return darwinPlace();
  try {
    // If a new pid namespace still has the /proc of the old one, the entries of /proc are not pids of the new one.
    if (fs.readlinkSync('/proc/self') !== String(process.pid)) return null;
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return { boot, pidNamespace: fs.readlinkSync('/proc/self/ns/pid') };
  } catch {
    return null;
  }
}

/** macOS has one pid namespace. */
function darwinPlace(): Place {
  try {
    // sysctl returns at once. The timeout keeps a start from hanging if it doesn't.
    const options = { encoding: 'utf8', timeout: 5_000 } as const;
    const boot = execFileSync('/usr/sbin/sysctl', ['-n', 'kern.bootsessionuuid'], options).trim();
    return boot === '' ? null : { boot, pidNamespace: 'darwin' };
  } catch {
    return null;
  }
}

function stateOf(pid: number): ProcessState {
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return { kind: 'dead' };
    // EPERM: the process exists, but belongs to another user.
  }
  return readStat(pid) ?? { kind: 'alive', started: null };
}

/** Returns null if the system doesn't tell, or if the process has just ended. */
function readStat(pid: number): ProcessState | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in parentheses and may hold anything; state is field 3, start time field
    // 22.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const state = fields[0] ?? '';
    // The main thread of a killed process becomes a zombie while other threads may still be writing to the disk.
    const isDead = state === 'X' || (state === 'Z' && fs.readdirSync(`/proc/${pid}/task`).length <= 1);
    return isDead ? { kind: 'dead' } : { kind: 'alive', started: fields[19] ?? null };
  } catch {
    return null;
  }
}

/** Returns the files of a lock folder. Creates the folder if there is none. */
export function lockFiles(folder: string): LockFiles {
  fs.mkdirSync(folder, { recursive: true });
  return {
    async perform(operation) {
      try {
        return await performLater(folder, operation);
      } catch (error) {
        return absent(operation, error);
      }
    },
    performNow(operation) {
      try {
        return performNow(folder, operation);
      } catch (error) {
        return absent(operation, error);
      }
    },
  };
}

// Each read and write opens the file, because a network file system fetches and sends changes when a file is opened and
// closed. Nothing is synced, because after a power loss no process of this machine holds a lock.

async function performLater(folder: string, operation: LockOperation): Promise<unknown> {
  const { promises } = fs;
  switch (operation.kind) {
    case 'list':
      return promises.readdir(folder);
    case 'read':
      return promises.readFile(join(folder, operation.name), 'utf8');
    case 'create':
      await (await promises.open(join(folder, operation.name), 'wx')).close();
      return true;
    case 'write': {
      const file = await promises.open(join(folder, operation.name), 'r+');
      try {
        await file.write(operation.text, 0);
      } finally {
        await file.close();
      }
      return true;
    }
    case 'remove':
      return promises.rm(join(folder, operation.name), { force: true });
  }
}

function performNow(folder: string, operation: LockOperation): unknown {
  switch (operation.kind) {
    case 'list':
      return fs.readdirSync(folder);
    case 'read':
      return fs.readFileSync(join(folder, operation.name), 'utf8');
    case 'create':
      fs.closeSync(fs.openSync(join(folder, operation.name), 'wx'));
      return true;
    case 'write': {
      const descriptor = fs.openSync(join(folder, operation.name), 'r+');
      try {
        fs.writeSync(descriptor, operation.text, 0);
      } finally {
        fs.closeSync(descriptor);
      }
      return true;
    }
    case 'remove':
      return fs.rmSync(join(folder, operation.name), { force: true });
  }
}

/** Returns the result of an operation that failed because the file is missing or exists. Throws all other errors. */
function absent({ kind }: LockOperation, error: unknown): unknown {
  const code = (error as NodeJS.ErrnoException).code;
  // ESTALE: the file was removed by another client of a network file system.
  const isMissing = code === 'ENOENT' || code === 'ESTALE';
  if (kind === 'create' && code === 'EEXIST') return false;
  if (kind === 'write' && isMissing) return false;
  if (kind === 'read' && isMissing) return null;
  if (kind === 'list' && isMissing) return [];
  throw error;
}
