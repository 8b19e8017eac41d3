import * as fs from 'node:fs';
import { join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';

/**
 * Keeps two processes off one data directory. It is about processes, so it stands outside the simulator and takes the
 * file system as it is, not through `Disk`: it promises nothing about power loss, after which no process holds a lock.
 *
 * Node has no lock that ends with its process, so the folder `LOCK` holds numbered files, each with the identity of the
 * process that made it. The highest number is the holder's. A process that finds the holder dead creates the next number, by a
 * hard link, which exactly one can. The highest is never removed, only ones below it; so a number that was judged can
 * never come back as somebody else's, and a late link below the highest is seen by its maker, who then has lost.
 *
 * A holder is known by its pid and, on Linux, by the boot and the moment it started, so a pid used again is not taken for it.
 * Elsewhere it counts as alive while any process has its pid. Processes that do not see each other's pids (containers
 * that share a folder, machines that share a network drive) are not kept apart.
 */
export interface DataDirLock {
  /** Lets another process have the folder. Ending the process does it as well. */
  release(): void;
}

const LOCK_FOLDER = 'LOCK';
const RELEASED = 'released';
const NUMBER_NAME = /^\d{10}$/;
/** Each further attempt means that another process made a file or cleaned up in between. */
const ATTEMPTS_MAX = 100;

/**
 * Takes the folder for this process. It must exist.
 * @param random uniform in [0, 1); names the temporary file.
 * @throws RaftkvError DATA_DIR_LOCKED where a live process holds it.
 */
export function lockDataDir(directory: string, random: () => number): DataDirLock {
  const folder = join(directory, LOCK_FOLDER);
  fs.mkdirSync(folder, { recursive: true });
  const identity = `${process.pid} ${startIdentity(process.pid) ?? ''}\n`;
  for (let attempt = 0; attempt < ATTEMPTS_MAX; attempt++) {
    const highest = numbersIn(folder).at(-1) ?? 0;
    if (highest > 0) refuseLiveHolder(folder, nameOf(highest));
    const mine = highest + 1;
    if (!linkWhole(folder, nameOf(mine), identity, random)) continue;
    // Made below the highest, which somebody made since we looked: lost.
    if (numbersIn(folder).at(-1) !== mine) {
      fs.rmSync(join(folder, nameOf(mine)), { force: true });
      continue;
    }
    removeOlder(folder, mine);
    return { release: () => replaceWhole(folder, nameOf(mine), RELEASED, random) };
  }
  throw new RaftkvError(
    'DATA_DIR_LOCKED',
    `${folder} is contended by several processes`,
    'Start only one process per data directory.',
  );
}

function refuseLiveHolder(folder: string, name: string): void {
  const path = join(folder, name);
  let text: string;
  try {
    text = fs.readFileSync(path, 'utf8');
  } catch (error) {
    // A higher number has replaced it since; the next attempt sees that one.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  const [, digits = '', started = ''] = /^(\d+) (.*)\n$/.exec(text) ?? [];
  const pid = Number(digits);
  if (digits === '' || !isAlive(pid, started)) return;
  throw new RaftkvError(
    'DATA_DIR_LOCKED',
    `the data directory is in use by process ${pid} (${path})`,
    `Stop process ${pid} first, or give this node a dataDir of its own. If that process is not raftkv, remove ${folder}.`,
  );
}

function isAlive(pid: number, started: string): boolean {
  let isOurs = true;
  try {
    process.kill(pid, 0);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    // Alive, but another user's; the system may then hide when it started.
    isOurs = false;
  }
  if (started === '') return true;
  const now = startIdentity(pid);
  return now === null ? !isOurs : now === started;
}

/** What tells a process from a later one with the same pid: boot and start time. Null where unknown, or where it is dead. */
function startIdentity(pid: number): string | null {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, 'utf8');
    // The second field is the program's name in parentheses and may hold anything; state is field 3, start time field 22.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const state = fields[0] ?? '';
    if (state === 'Z' || state === 'X') return null;
    const boot = fs.readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
    return `${boot}/${fields[19] ?? ''}`;
  } catch {
    return null;
  }
}

function numbersIn(folder: string): number[] {
  return fs
    .readdirSync(folder)
    .filter((name) => NUMBER_NAME.test(name))
    .map(Number)
    .sort((a, b) => a - b);
}

function nameOf(number: number): string {
  return String(number).padStart(10, '0');
}

/** Makes a file that is whole from the moment its name exists; false where the name is taken. */
function linkWhole(folder: string, name: string, content: string, random: () => number): boolean {
  const temporary = writeTemporary(folder, content, random);
  try {
    fs.linkSync(temporary, join(folder, name));
    return true;
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code;
    // ENOENT: the holder has cleaned our temporary file away.
    if (code === 'EEXIST' || code === 'ENOENT') return false;
    throw error;
  } finally {
    fs.rmSync(temporary, { force: true });
  }
}

function replaceWhole(folder: string, name: string, content: string, random: () => number): void {
  fs.renameSync(writeTemporary(folder, content, random), join(folder, name));
}

function writeTemporary(folder: string, content: string, random: () => number): string {
  const path = join(folder, `${process.pid}-${Math.floor(random() * 2 ** 52).toString(36)}.tmp`);
  fs.writeFileSync(path, content);
  return path;
}

/** What dead processes have left: lower numbers, and temporary files. */
function removeOlder(folder: string, mine: number): void {
  for (const name of fs.readdirSync(folder)) {
    if (name !== nameOf(mine)) fs.rmSync(join(folder, name), { force: true });
  }
}
