import type { Clock } from '../../base/clock.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import type { NodeMessage } from '../node/types.ts';
import { formatTable } from '../terminal/output.ts';

/**
 * What the spawner has heard from its nodes: who is up, who serves, who leads. It decides when the cluster serves.
 */

/** For so long the summary waits for the last nodes after the cluster serves. A healthy start takes less. */
const STRAGGLER_MS_MAX = 1_500;

/** `waiting`: its ports are open, and it waits for a quorum or catches up. */
type NodeState = 'starting' | 'waiting' | 'serving' | 'down' | 'removed';

interface NodeView {
  up: boolean;
  /** Its ports are open. */
  listening: boolean;
  /** The node has applied up to a confirmed commit index. This may come before its ports are open. */
  caughtUp: boolean;
  /** The node was removed from the cluster, so it is not started again. */
  removed: boolean;
  leader: number;
  term: number;
}

const NEW: NodeView = { up: true, listening: false, caughtUp: false, removed: false, leader: 0, term: 0 };

/** `onServing` is called once: when all nodes serve, or a majority does and the others take long. */
export class ClusterView {
  readonly #nodes: Map<number, NodeView>;
  readonly #clock: Clock;
  readonly #onServing: () => void;
  #announced = false;
  #cancelWait: (() => void) | undefined;

  constructor(config: Config, clock: Clock, onServing: () => void) {
    this.#nodes = new Map(config.nodes.map((node) => [node.id, { ...NEW }]));
    this.#clock = clock;
    this.#onServing = onServing;
  }

  heard(nodeId: number, message: NodeMessage): void {
    const node = this.#nodes.get(nodeId);
    if (node === undefined) return;
    switch (message.kind) {
      case 'listening':
        node.listening = true;
        this.#consider();
        return;
      case 'serving':
        node.caughtUp = true;
        this.#consider();
        return;
      case 'leaderChanged':
        node.leader = message.leader;
        node.term = message.term;
        return;
      case 'removed':
        node.removed = true;
        node.caughtUp = false;
        this.#consider();
        return;
      case 'fatal':
        node.up = false;
    }
  }

  started(nodeId: number): void {
    this.#nodes.set(nodeId, { ...NEW });
  }

  ended(nodeId: number): void {
    this.#nodes.set(nodeId, { ...NEW, up: false, removed: this.#nodes.get(nodeId)?.removed === true });
  }

  /** The leader that the newest term's nodes name; 0 where none is known. */
  get leader(): number {
    let newest = NEW;
    for (const node of this.#nodes.values()) if (node.leader !== 0 && node.term >= newest.term) newest = node;
    return newest.leader;
  }

  stateOf(nodeId: number): NodeState {
    const node = this.#nodes.get(nodeId);
    if (node?.removed) return 'removed';
    if (!node?.up) return 'down';
    if (!node.listening) return 'starting';
    return node.caughtUp ? 'serving' : 'waiting';
  }

  close(): void {
    this.#announced = true;
    this.#cancelWait?.();
  }

  #consider(): void {
    if (this.#announced || !this.#isMajority()) return;
    if (this.#serving() < this.#members()) {
      this.#cancelWait ??= this.#clock.after(STRAGGLER_MS_MAX, () => this.#announce());
      return;
    }
    this.#cancelWait?.();
    this.#announce();
  }

  #announce(): void {
    this.#cancelWait = undefined;
    if (this.#announced || !this.#isMajority()) return;
    this.#announced = true;
    this.#onServing();
  }

  #isMajority(): boolean {
    return this.#serving() > Math.floor(this.#members() / 2);
  }

  #serving(): number {
    return [...this.#nodes.values()].filter((node) => node.listening && node.caughtUp).length;
  }

  #members(): number {
    return [...this.#nodes.values()].filter((node) => !node.removed).length;
  }
}

/** The table, and a line to paste, for a terminal. */
export function describeCluster(config: Config, view: ClusterView): string {
  const leader = view.leader;
  const rows = config.nodes.map((node) => [
    String(node.id),
    `${node.host}:${node.clientPort}`,
    String(node.peerPort),
    String(node.adminPort),
    node.id === leader ? 'leads' : view.stateOf(node.id) === 'serving' ? 'follows' : view.stateOf(node.id),
  ]);
  const table = formatTable([['node', 'clients', 'peers', 'admin', ''], ...rows]);
  // With TLS or passwords, a line for netcat would not work.
  const open = config.authFile === undefined && (config.tls?.clients ?? 'plain') === 'plain';
  const tryNode = open && config.nodes.find((node) => view.stateOf(node.id) === 'serving');
  return `\nCluster ${config.cluster} serves.\n\n${indent(table)}\n${tryNode ? `\nTry it:\n\n${indent(sampleLine(tryNode))}\n` : ''}\n`;
}

function sampleLine({ host, clientPort }: NodeConfig): string {
  return `printf 'set a 0 0 5\\r\\nhello\\r\\nget a\\r\\nquit\\r\\n' | nc ${host} ${clientPort}`;
}

function indent(text: string): string {
  return text
    .split('\n')
    .map((line) => `  ${line}`)
    .join('\n');
}
