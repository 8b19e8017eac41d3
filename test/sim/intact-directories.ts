import type { Core } from '../../src/raft/state/core.ts';
import type { Configuration, MemberChange, NodeId } from '../../src/raft/state/types.ts';
import { isQuorum, keyOf } from './durability.ts';
import { committedIn } from './member-checks.ts';
import type { SimNode } from './processes.ts';

/**
 * What a cluster survives: a majority of every configuration that is in force anywhere, or soon may be, must hold an
 * intact directory. Faults and operators ask here before they take one away, as a careful operator would.
 */
export class IntactDirectories {
  readonly #nodes: readonly SimNode[];
  /** Asked for, and perhaps not carried out yet. */
  readonly pending = new Set<MemberChange>();

  constructor(nodes: readonly SimNode[]) {
    this.#nodes = nodes;
  }

  /** Whether all are well enough that this node's data may be damaged or wiped. */
  mayHarm(victim: SimNode): boolean {
    const configurations = this.#inForce();
    if (configurations.length === 0 || victim.core === null) return false;
    const intact = this.#intact((node) => node !== victim);
    return configurations.every((each) => this.#possible(each).every((one) => isQuorum(one, (key) => intact.has(key))));
  }

  /** Whether voters may go: while any other voter is not intact, or away, none may. */
  mayLoseVoter(id: NodeId): boolean {
    const intact = this.#intact(({ running }) => running !== null);
    return this.#inForce().every(({ voters, votersOutgoing, details }) =>
      details.every(
        (detail) =>
          detail.id === id ||
          !(voters.includes(detail.id) || votersOutgoing.includes(detail.id)) ||
          intact.has(keyOf(detail.id, detail.directoryId)),
      ),
    );
  }

  /** The directories that have kept all they promised. */
  #intact(also: (node: SimNode) => boolean): ReadonlySet<string> {
    const keys = new Set<string>();
    for (const node of this.#nodes) {
      const { core } = node;
      if (core === null || core.rights.lifecycle === 'uninitialized' || node.ended || !also(node)) continue;
      keys.add(keyOf(node.id, core.rights.directoryId));
    }
    return keys;
  }

  /** Of every node: the newest that it knows to be committed, and all after it. */
  #inForce(): readonly Configuration[] {
    const found = new Set<Configuration>();
    for (const { core, ended } of this.#nodes) {
      if (core === null || ended || core.rights.lifecycle === 'uninitialized') continue;
      for (const each of inForceAt(core)) if (each.voters.length > 0) found.add(each);
    }
    return [...found];
  }

  /** A configuration, and what promotions and changes under way may soon make of it. */
  #possible(configuration: Configuration): readonly Configuration[] {
    const changes: { readonly adds: NodeId; readonly drops: NodeId }[] = [];
    for (const { id, joins, replaces } of configuration.details) if (joins) changes.push({ adds: id, drops: replaces });
    for (const change of this.pending) {
      if (change.op === 'remove') changes.push({ adds: 0, drops: change.id });
      else if (change.op === 'promote') changes.push({ adds: change.id, drops: 0 });
      else if (change.joins) changes.push({ adds: change.id, drops: change.replaces });
    }
    const possible = [configuration];
    let all = configuration;
    for (const { adds, drops } of changes) {
      possible.push(changed(configuration, adds, drops));
      all = changed(all, adds, drops);
      possible.push(all);
    }
    return possible;
  }
}

function inForceAt(core: Core): readonly Configuration[] {
  const committed = committedIn(core);
  const later = core.configurations.entries.filter(({ index }) => index > core.log.commitIndex);
  return [committed, ...later.map(({ configuration }) => configuration)];
}

function changed(configuration: Configuration, adds: NodeId, drops: NodeId): Configuration {
  const voters = configuration.voters.filter((id) => id !== drops && id !== adds);
  // One that is not known here is not known to be intact either.
  return { ...configuration, voters: adds === 0 || voters.length === 0 ? voters : [...voters, adds] };
}
