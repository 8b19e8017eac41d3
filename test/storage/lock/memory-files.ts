import type { LockOperation } from '../../../src/storage/lock/protocol.ts';

/** Performs an operation on a lock folder in memory, and returns what that of a file system returns. */
export function performOn(files: Map<string, string>, operation: LockOperation): unknown {
  switch (operation.kind) {
    case 'list':
      return [...files.keys()];
    case 'read':
      return files.get(operation.name) ?? null;
    case 'create':
      if (files.has(operation.name)) return false;
      files.set(operation.name, '');
      return true;
    case 'write': {
      const { name, text } = operation;
      const old = files.get(name);
      if (old === undefined) return false;
      // What a longer file has behind the text stays.
      files.set(name, text + old.slice(text.length));
      return true;
    }
    case 'remove':
      files.delete(operation.name);
      return undefined;
  }
}
