import type { Mutant } from './mutant.ts';

/** Faults of cutting the state, of snapshot files, of carrying them over and putting them in place, and of what goes behind them. */
export const snapshotMutants: readonly Mutant[] = [
  {
    name: 'cut-misses-update',
    fault: 'puts an item into a snapshot as it is after a later write',
    file: 'kv/store.ts',
    find: `cas: Cas, nowMs: number): void {
    if (item.cut !== this.#cutNumber) this.#keepCopy(item);
`,
    replace: 'cas: Cas, nowMs: number): void {\n',
  },
  {
    name: 'cut-misses-touch',
    fault: 'puts an item into a snapshot with a later time to expire',
    file: 'kv/store.ts',
    find: `  reschedule(item: ItemInPlace, expiresAtMs: number): void {
    if (item.cut !== this.#cutNumber) this.#keepCopy(item);
`,
    replace: '  reschedule(item: ItemInPlace, expiresAtMs: number): void {\n',
  },
  {
    name: 'cut-misses-removal',
    fault: 'leaves an item out of a snapshot that was removed while it was written',
    file: 'kv/store.ts',
    find: '    if (item.cut !== this.#cutNumber && this.#cut?.isOpen) this.#cut.keep(item);\n',
    replace: '',
  },
  {
    name: 'cut-misses-flush',
    fault: 'loses what a running cut still needs when everything is flushed',
    file: 'kv/store.ts',
    find: '    if (this.#cut?.isOpen) this.#shards = emptyShards();\n    else for',
    replace: '    for',
  },
  {
    name: 'cut-takes-newcomers',
    fault: 'puts items into a snapshot that were made after its moment',
    file: 'kv/store.ts',
    find: '-Math.trunc(nowMs / 1000), this.#cutNumber);\n    this.#shardOf(key).set(key, item);',
    replace: '-Math.trunc(nowMs / 1000), this.#cutNumber - 1);\n    this.#shardOf(key).set(key, item);',
  },
  {
    name: 'snapshot-without-sessions',
    fault: 'forgets in a snapshot how far each node has written (etcd 18424)',
    file: 'kv/snapshot.ts',
    find: 'this.#sessions.load(origin, chunk.readUInt32LE(at + 4), lastSequence);',
    replace: 'this.#sessions.load(origin, chunk.readUInt32LE(at + 4), Math.min(1, lastSequence));',
  },
  {
    name: 'snapshot-without-cas',
    fault: 'begins to count cas uniques anew behind a snapshot',
    file: 'kv/snapshot.ts',
    find: 'return { timeMs, flushAtMs, casCounter, totalItems, items, itemBytes };',
    replace: 'return { timeMs, flushAtMs, casCounter: casCounter - casCounter, totalItems, items, itemBytes };',
  },
  {
    name: 'snapshot-unsynced',
    fault: 'gives a snapshot its name before its content is durable (RedisRaft 43)',
    file: 'storage/snapshot-writer.ts',
    find: '      await this.#file.sync();\n      await this.#file.close();',
    replace: '      await this.#file.close();',
  },
  {
    name: 'snapshot-directory-unsynced',
    fault: 'does not sync the folder of a new snapshot (etcd 6368)',
    file: 'storage/snapshot-writer.ts',
    find: '    await this.#disk.syncDirectory(dirname(path));\n',
    replace: '',
  },
  {
    name: 'old-snapshot-removed-first',
    fault: 'removes the old snapshot before the new one is durable (RedisRaft 43)',
    file: 'storage/snapshot-files.ts',
    find: `    await file.moveTo(info.path);
    this.#add(info);
    await this.#removeOlder();`,
    replace: `    this.#add(info);
    await this.#removeOlder();
    await file.moveTo(info.path);`,
  },
  {
    name: 'snapshot-name-not-durable',
    fault: 'begins its log behind a snapshot whose name power loss may take back',
    file: 'storage/snapshot-files.ts',
    find: '  await disk.syncDirectory(directory);\n  const names',
    replace: '  const names',
  },
  {
    name: 'stored-before-durable',
    fault: 'compacts the log behind a snapshot that is not durable (RedisRaft 43)',
    file: 'replica/snapshotter.ts',
    find: '      const info = await writer.finish();\n',
    replace: `      this.context.onStored({ index, term, configuration, byteLength: 0, path: '' });
      this.compactTo = index;
      this.compact();
      const info = await writer.finish();
`,
  },
  {
    name: 'snapshot-of-newer-members',
    fault: 'writes the newest configuration into a snapshot of an earlier entry',
    file: 'replica/snapshotter.ts',
    find: 'const members = configurationAt(core, index);',
    replace: 'const members = index < 0 ? configurationAt(core, index) : core.configuration;',
  },
  {
    name: 'snapshot-keeps-members',
    fault: 'keeps an uncommitted configuration where a snapshot has another (openraft 1808)',
    file: 'raft/membership.ts',
    find: '  core.configurations = [{ index, configuration }, ...later];\n',
    replace:
      '  core.configurations = core.configuration.voters.length > 0 ? [...core.configurations] : [{ index, configuration }, ...later];\n',
  },
  {
    name: 'compacted-under-transfer',
    fault: 'compacts the log that a follower needs behind the snapshot it fetches (consul 9609)',
    file: 'raft/snapshot.ts',
    find: '    end = Math.min(end, progress.keepsLogFrom);\n',
    replace: "    if (progress.state !== 'snapshot') end = Math.min(end, progress.keepsLogFrom);\n",
  },
  {
    name: 'compacted-after-transfer',
    fault: 'compacts the log that a follower needs behind the snapshot it has just had, and so needs another',
    file: 'raft/snapshot.ts',
    find: '    end = Math.min(end, progress.keepsLogFrom);\n',
    replace: "    if (progress.state === 'snapshot') end = Math.min(end, progress.keepsLogFrom);\n",
  },
  {
    name: 'offered-once',
    fault: 'offers a snapshot once only: a follower that could not take it then waits until all patience is over',
    file: 'raft/replication.ts',
    find: '    if (needsSnapshot) offerSnapshot(core, peer, progress);',
    replace:
      "    if (needsSnapshot) {\n      if (progress.state !== 'snapshot') offerSnapshot(core, peer, progress);\n    }",
  },
  {
    name: 'transfer-never-over',
    fault: 'goes on offering a snapshot to a follower that has it',
    file: 'raft/progress.ts',
    find: "    if (this.state === 'probe' || (this.state === 'snapshot' && index >= logStart)) {",
    replace: "    if (this.state === 'probe' || (this.state === 'snapshot' && index < logStart)) {",
  },
  {
    name: 'purged-is-conflict',
    fault: 'takes an entry that is in its snapshot for a conflict (openraft 511)',
    file: 'raft/replication.ts',
    find: 'const matches = prevIndex < log.commitIndex || log.termAt(prevIndex) === prevTerm;',
    replace: 'const matches = log.termAt(prevIndex) === prevTerm;',
  },
  {
    name: 'fetched-overtaken',
    fault: 'sends entries read back from disk though compaction has overtaken them',
    file: 'raft/replication.ts',
    find: 'index > log.snapshotIndex && log.termAt(index) === term);',
    replace: 'index >= 0 && log.termAt(index) === term);',
  },
  {
    name: 'read-back-overtaken',
    fault: 'removes the files from which it reads entries back, and takes that for a broken disk',
    file: 'storage/segmented-wal.ts',
    find: '      await Promise.allSettled(this.#reads);\n',
    replace: '',
    also: {
      file: 'replica/node-replica.ts',
      find: '        if (fromIndex > this.log.snapshotIndex) this.fail(error);',
      replace: '        if (fromIndex > 0) this.fail(error);',
    },
  },
  {
    name: 'install-keeps-conflict',
    fault: 'keeps a log that disagrees with the snapshot it takes over',
    file: 'raft/snapshot.ts',
    find: '  const resetLog = log.termAt(index) !== term;\n',
    replace: '  const resetLog = index > log.lastIndex || term < 0;\n',
  },
  {
    name: 'install-drops-tail',
    fault: 'drops entries behind a snapshot that it has acknowledged',
    file: 'raft/snapshot.ts',
    find: '  const resetLog = log.termAt(index) !== term;\n',
    replace: '  const resetLog = term >= 0;\n',
  },
  {
    name: 'install-goes-back',
    fault: 'takes over a snapshot that is older than what it has applied',
    file: 'raft/snapshot.ts',
    find: '  if (index > log.commitIndex) install(core, { index, term }, configuration);',
    replace: '  if (index > 0) install(core, { index, term }, configuration);',
  },
  {
    name: 'offer-acknowledged',
    fault: 'acknowledges a snapshot that it has yet to fetch',
    file: 'raft/snapshot.ts',
    find: '  core.effects.wantSnapshot = { from, index: snapshotIndex, term: snapshotTerm };\n',
    replace: `  core.effects.wantSnapshot = { from, index: snapshotIndex, term: snapshotTerm };
  acknowledge(core, from, snapshotIndex);
`,
  },
  {
    name: 'snapshot-before-term',
    fault: 'stores a snapshot of a term that it has not written yet',
    file: 'raft/snapshot.ts',
    find: '  if (hardStateIsPending(core)) return;\n  core.effects.wantSnapshot',
    replace: '  core.effects.wantSnapshot',
  },
  {
    name: 'install-unwritten',
    fault: 'does not begin its log file behind the snapshot it took over',
    file: 'replica/persister.ts',
    find: '    if (effects.install?.resetLog === true) {',
    replace: '    if (effects.install?.resetLog === true && effects.install.index < 0) {',
  },
  {
    name: 'gap-after-install',
    fault: 'leaves a gap between snapshot and log where it died in between (RedisRaft 43)',
    file: 'replica/node-replica.ts',
    find: '    if (options.logStart !== null) this.persister.begin(options.logStart, hardState, []);\n',
    replace: '',
  },
  {
    name: 'overtaken-never-settled',
    fault: 'waits for ever for writes that a snapshot contains',
    file: 'replica/node-replica.ts',
    find: '    if (this.standings.mayPropose && own?.session === this.origin.session) this.origin.overtaken(own.lastSequence);\n',
    replace: '',
  },
  {
    name: 'overtaken-says-stored',
    fault: 'says that a write was done as asked whose result a snapshot has swallowed',
    file: 'server/answers.ts',
    find: '  overtaken: WRITE_OVERTAKEN,',
    replace: '  overtaken: STORED,',
  },
  {
    name: 'refused-says-stored',
    fault: 'says that a write is done that a full disk refused',
    file: 'server/answers.ts',
    find: '  diskFull: WRITE_REFUSED_DISK_FULL,',
    replace: '  diskFull: STORED,',
  },
  {
    name: 'gone-for-ever',
    fault: 'goes on offering a snapshot that it no longer has',
    file: 'replica/snapshot-server.ts',
    find: '      onStalled(from);\n    });',
    replace: '    });',
  },
  {
    name: 'compacts-within-compaction',
    fault: 'begins to compact the log while it compacts it',
    file: 'replica/snapshotter.ts',
    find: '    if (this.compacting || this.stopping) return;\n',
    replace: '    if (this.stopping) return;\n',
  },
  {
    name: 'snapshot-without-members',
    fault: 'takes a snapshot before it knows a member, which cannot be read back',
    file: 'replica/snapshotter.ts',
    find: '    if (members.voters.length === 0) return null;\n',
    replace: '',
  },
  {
    name: 'compaction-unsynced',
    fault: 'removes segments in an order that power loss can turn into a gap',
    file: 'storage/segment-retention.ts',
    find: '      await this.#disk.syncDirectory(this.#directory);\n',
    replace: '',
  },
  {
    name: 'never-compacts',
    fault: 'keeps its log for ever',
    file: 'storage/segmented-wal.ts',
    find: '    if (!this.#retention.hasBelow(keepFrom)) return;\n',
    replace: '    if (index > 0 || !this.#retention.hasBelow(keepFrom)) return;\n',
  },
  {
    name: 'compacts-too-much',
    fault: 'gives back segments that hold entries behind the snapshot',
    file: 'storage/segmented-wal.ts',
    find: 'Math.min(index + 1, this.#durableIndex)',
    replace: 'Math.min(index + 40, this.#durableIndex)',
  },
  {
    name: 'damaged-log-forgets-term',
    fault: 'starts from a snapshot of a later term than its own',
    file: 'replica/recovery.ts',
    find: '    if (this.hardState.term < lastTerm) this.hardState',
    replace: '    if (lastTerm < 0) this.hardState',
  },
  {
    name: 'full-disk-is-final',
    fault: 'gives up where the disk is full for a while',
    file: 'storage/segment-filler.ts',
    find: '      if (!isDiskFull(error)) throw error;\n',
    replace: '      throw error;\n',
  },
  {
    name: 'full-for-ever',
    fault: 'does not notice that there is room again',
    file: 'storage/segment-filler.ts',
    find: '      this.#cancelRetry = null;\n      if (!this.#stopped) this.#onRoom();',
    replace: '      this.#cancelRetry = null;',
  },
];
