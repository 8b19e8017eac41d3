import type { Logger } from '../../base/logger.ts';
import type { Config } from '../../config/schema.ts';

/**
 * What the commands need of a node: to start it, to hear how it fares, to stop it. `run-node.ts` builds the real one.
 */

export type NodeEvent =
  /** All ports are open. */
  | { readonly kind: 'listening' }
  /** This node learned of another leader; 0 if it knows none. */
  | { readonly kind: 'leaderChanged'; readonly leader: number; readonly term: number }
  /** This node can serve: it has applied up to a commit index confirmed since its start. */
  | { readonly kind: 'serving' }
  /** The cluster has removed this node: its work is done, and it should stop. */
  | { readonly kind: 'removed' }
  /** This node can't go on, for example after a failed sync. It must not be stopped gracefully: it must not send anything more. */
  | { readonly kind: 'fatal'; readonly error: unknown };

export interface NodeContext {
  /** A newcomer: it waits to be added to the cluster of the other nodes, and never forms one. */
  readonly join: boolean;
  readonly logger: Logger;
  onEvent(event: NodeEvent): void;
}

export interface RunningNode {
  /** Reads passwords and certificates again. What is wrong is logged, and the old stays in force. */
  reload(): void;
  /** Hands over leadership, stops accepting, answers pending requests, closes the files. */
  stop(): Promise<void>;
}

/** Resolves once all ports are open; rejects, with everything closed again, where the node can't start. */
export type RunNode = (config: Config, nodeId: number, context: NodeContext) => Promise<RunningNode>;

/** The messages of a node's process to the spawner, over the IPC channel. */
export type NodeMessage =
  | Exclude<NodeEvent, { kind: 'fatal' }>
  | { readonly kind: 'fatal'; readonly code: string; readonly message: string; readonly remedy: string };

export function isNodeMessage(value: unknown): value is NodeMessage {
  return typeof value === 'object' && value !== null && 'kind' in value && typeof value.kind === 'string';
}
