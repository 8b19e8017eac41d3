import type { MemoryFile } from './memory-file.ts';

/** The names of one folder, as readers see them and as they will be after power loss. Names here are whole paths. */

export type DirectoryOperation =
  | { readonly kind: 'link'; readonly path: string; readonly file: MemoryFile }
  | { readonly kind: 'unlink'; readonly path: string; readonly file: MemoryFile }
  | { readonly kind: 'rename'; readonly path: string; readonly to: string; readonly file: MemoryFile };

export class MemoryDirectory {
  #cache = new Map<string, MemoryFile>();
  #durable = new Map<string, MemoryFile>();
  #unsynced: DirectoryOperation[] = [];

  names(): Iterable<string> {
    return this.#cache.keys();
  }

  /** All that have a name here, or had one that power loss may bring back. */
  files(): Iterable<MemoryFile> {
    return [...this.#cache.values(), ...this.#durable.values()];
  }

  get(path: string): MemoryFile | undefined {
    return this.#cache.get(path);
  }

  do(operation: DirectoryOperation): void {
    apply(this.#cache, operation);
    this.#unsynced.push(operation);
  }

  sync(): void {
    this.#durable = new Map(this.#cache);
    this.#unsynced = [];
  }

  /** Each operation that was not synced happened or not, by itself; one that rests on another that did not, did not. */
  crash(random: () => number): void {
    for (const operation of this.#unsynced) {
      const possible = operation.kind === 'link' || this.#durable.get(operation.path) === operation.file;
      if (possible && random() < 0.5) apply(this.#durable, operation);
    }
    this.#unsynced = [];
    this.#cache = new Map(this.#durable);
  }

  plant(path: string, file: MemoryFile | null): void {
    // What this replaces is not to come back after power loss.
    this.#unsynced = this.#unsynced.filter((operation) => nameGivenBy(operation) !== path);
    for (const names of [this.#cache, this.#durable]) {
      if (file === null) names.delete(path);
      else names.set(path, file);
    }
  }

  /** @param files copies made so far, so that a file stays one file in all its places. */
  clone(files: Map<MemoryFile, MemoryFile>): MemoryDirectory {
    const copyOf = (file: MemoryFile) => {
      const copy = files.get(file) ?? file.clone();
      files.set(file, copy);
      return copy;
    };
    const copy = new MemoryDirectory();
    for (const [path, file] of this.#cache) copy.#cache.set(path, copyOf(file));
    for (const [path, file] of this.#durable) copy.#durable.set(path, copyOf(file));
    copy.#unsynced = this.#unsynced.map((operation) => ({ ...operation, file: copyOf(operation.file) }));
    return copy;
  }
}

function nameGivenBy(operation: DirectoryOperation): string | null {
  switch (operation.kind) {
    case 'link':
      return operation.path;
    case 'unlink':
      return null;
    case 'rename':
      return operation.to;
  }
}

function apply(names: Map<string, MemoryFile>, operation: DirectoryOperation): void {
  switch (operation.kind) {
    case 'link':
      names.set(operation.path, operation.file);
      return;
    case 'unlink':
      names.delete(operation.path);
      return;
    case 'rename':
      names.delete(operation.path);
      names.set(operation.to, operation.file);
      return;
  }
}
