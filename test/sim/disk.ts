import type { Disk, DiskFile } from '../../src/storage/disk/disk.ts';
import { type DiskOperation, MemoryDisk } from '../support/memory-disk.ts';
import type { Random } from '../support/random.ts';
import type { Incarnation } from './incarnation.ts';
import type { World } from './world.ts';

/**
 * The disk of one machine, which outlives the processes on it: test/support/memory-disk.ts keeps the bytes and forgets
 * what was not synced; this gives it time, stalls and failures.
 */
export interface DiskHabits {
  /** Of one operation that reaches the device. */
  readonly latencyMs: { readonly min: number; readonly max: number };
}

export class SimDisk {
  memory: MemoryDisk;
  /** Failures put in on purpose and met by a process: what it then dies of is no defect. */
  failuresMet = 0;
  readonly #random: Random;
  readonly #habits: DiskHabits;
  #incarnation: Incarnation | null = null;
  #stalledUntilMs = 0;
  /** What the stall holds up. */
  #held: (() => void)[] = [];
  /** Told once, when the stall holds up an operation. */
  #onHeld: () => void = () => {};
  #hangsAt: ((operation: DiskOperation) => boolean) | null = null;
  #hung: (() => void)[] = [];

  constructor(random: Random, habits: DiskHabits) {
    this.#random = random;
    this.#habits = habits;
    this.memory = new MemoryDisk({ schedule: (operation, complete) => this.#schedule(operation, complete) });
  }

  /** What this machine would have after power loss, with nothing but what is durable for certain. */
  durable(): MemoryDisk {
    const copy = this.memory.clone();
    copy.crash(() => 1);
    return copy;
  }

  /** Another disk in this one's place, as it was when somebody took it out. */
  exchange(other: MemoryDisk): void {
    this.memory = other.clone();
    this.memory.schedule = (operation, complete) => this.#schedule(operation, complete);
  }

  /** The disk as one incarnation of a process sees it: what a dead one asks for is never done. */
  openFor(incarnation: Incarnation): Disk {
    this.#incarnation = incarnation;
    const { memory } = this;
    const alive = <T>(ask: () => Promise<T>): Promise<T> => (incarnation.effect() ? ask() : new Promise<T>(() => {}));
    return {
      makeDirectory: (path) => alive(() => memory.makeDirectory(path)),
      list: (path) => alive(() => memory.list(path)),
      open: (path, options) => alive(async () => watched(await memory.open(path, options), incarnation)),
      rename: (from, to) => alive(() => memory.rename(from, to)),
      remove: (path) => alive(() => memory.remove(path)),
      syncDirectory: (path) => alive(() => memory.syncDirectory(path)),
    };
  }

  /** The next operation of one of these kinds fails, and `onFailed` is called. */
  failNext(code: string, kinds: readonly DiskOperation['kind'][], onFailed: () => void): void {
    this.memory.failOnce(code, (operation) => {
      if (!kinds.includes(operation.kind)) return false;
      this.failuresMet++;
      onFailed();
      return true;
    });
  }

  /** No file grows any more. `onFull` is called when the first write fails. */
  fillUp(onFull: () => void): void {
    this.memory.capacityBytes = 0;
    this.memory.onFull = () => {
      this.memory.onFull = () => {};
      onFull();
    };
    this.failuresMet++;
  }

  makeRoom(): void {
    this.memory.capacityBytes = Number.POSITIVE_INFINITY;
    this.memory.onFull = () => {};
  }

  /** Nothing that is asked for, or under way, completes before then. `onHeld` is called when the first operation has to wait. */
  stall(world: World, untilMs: number, onHeld: () => void): void {
    this.#onHeld = onHeld;
    this.#stalledUntilMs = Math.max(this.#stalledUntilMs, untilMs);
    world.after(untilMs - world.nowMs, () => {
      if (world.nowMs >= this.#stalledUntilMs) this.goOn();
    });
  }

  goOn(): void {
    this.#stalledUntilMs = 0;
    this.#onHeld = () => {};
    for (const release of this.#held.splice(0)) release();
  }

  /** From now on what `matches` is begun and never completes, while all else goes on. */
  hangAt(matches: (operation: DiskOperation) => boolean): void {
    this.#hangsAt = matches;
  }

  /** Something has come to where it hangs. */
  get hangs(): boolean {
    return this.#hung.length > 0;
  }

  goOnEverywhere(): void {
    this.#hangsAt = null;
    for (const release of this.#hung.splice(0)) release();
  }

  powerLoss(): void {
    this.memory.crash(() => this.#random.next());
  }

  processEnded(): void {
    this.memory.kill(() => this.#random.next());
  }

  /** Damages what is durable: turns bits over, or loses a file. False where there is nothing that could be damaged. */
  rot(say: (what: string) => void): boolean {
    const paths = this.memory.paths().filter((path) => !path.includes('.tmp') && !path.includes('/damaged/'));
    if (paths.length === 0) return false;
    const path = this.#random.pick(paths);
    if (this.#random.chance(0.15)) {
      say(`loses ${path}`);
      this.memory.wipe(path);
      return true;
    }
    let turned = false;
    for (let bits = this.#random.pick([1, 1, 3]); bits > 0; bits--) {
      turned = this.#turnBit(this.#random.pick(paths), say) || turned;
    }
    return turned;
  }

  /** False where the file is empty. */
  #turnBit(path: string, say: (what: string) => void): boolean {
    const content = this.memory.contentOf(path);
    let end = content.length;
    while (end > 0 && content[end - 1] === 0) end--;
    if (end === 0) return false;
    // As often as not near the end, where damage is easily taken for a torn write.
    const from = this.#random.chance(0.5) ? Math.max(0, end - 600) : 0;
    const bit = from * 8 + this.#random.below((end - from) * 8);
    say(`bit ${bit % 8} of byte ${bit >>> 3} of ${path} turns over`);
    this.memory.flipBit(path, bit);
    return true;
  }

  /** The data directory is gone for good, as with a new disk: nothing of it comes back, whatever happens next. */
  wipe(): void {
    this.memory.wipeAll();
  }

  /** Bytes of all files whose path `counts`. */
  bytesOf(counts: (path: string) => boolean): number {
    let bytes = 0;
    for (const path of this.memory.paths()) if (counts(path)) bytes += this.memory.contentOf(path).length;
    return bytes;
  }

  #schedule(operation: DiskOperation, complete: () => void): void {
    const incarnation = this.#incarnation;
    if (incarnation === null) return;
    const { min, max } = this.#habits.latencyMs;
    // Reading what is cached, opening and closing never reach the device.
    const cheap = operation.kind !== 'sync' && operation.kind !== 'write' && operation.kind !== 'syncDirectory';
    const delayMs = cheap ? this.#random.next() * min : this.#random.skewed(min, max);
    const land = () => {
      // A stall that came meanwhile holds up what is under way too.
      if (incarnation.world.nowMs < this.#stalledUntilMs) this.#hold(() => incarnation.post(delayMs, complete));
      else complete();
    };
    if (this.#hangsAt?.(operation) === true) this.#hung.push(() => incarnation.post(delayMs, land));
    else if (incarnation.world.nowMs < this.#stalledUntilMs) this.#hold(() => incarnation.post(delayMs, land));
    else incarnation.post(delayMs, land);
  }

  #hold(release: () => void): void {
    this.#held.push(release);
    this.#onHeld();
    this.#onHeld = () => {};
  }
}

function watched(file: DiskFile, incarnation: Incarnation): DiskFile {
  const never = <T>(): Promise<T> => new Promise<T>(() => {});
  return {
    write(buffer, offset, length, position, done) {
      if (incarnation.effect()) file.write(buffer, offset, length, position, done);
    },
    read: (buffer, offset, length, position) => file.read(buffer, offset, length, position),
    sync: () => (incarnation.effect() ? file.sync() : never()),
    size: () => file.size(),
    close: () => file.close(),
  };
}
