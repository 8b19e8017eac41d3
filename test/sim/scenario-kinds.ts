/** What befalls a cluster that is well, step by step, so that chance need not bring it about; see scenarios.ts. */
export const SCENARIO_KINDS = [
  /** A process dies between giving a snapshot its name and making that durable; after the next start, the power fails. */
  'nameTakenBack',
  /** A long write is torn, and what comes in its place is shorter; then shorter ones are torn, in front of its remains. */
  'tornTwice',
  /** A node's old disk is put back, which counts its start as its other disk had done; a client asks the same again. */
  'sameSession',
  /** While a snapshot is on its way to a follower, another leader brings it the entries, which it can't yet commit. */
  'keptTail',
  /** A follower's log hangs before it has written the leader's term; it is offered a snapshot of that term. */
  'slowLog',
  /** While entries are read back from disk for a follower, the log is compacted beyond them. */
  'slowReader',
] as const;
export type ScenarioKind = (typeof SCENARIO_KINDS)[number];
