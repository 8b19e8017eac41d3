/** What befalls one node, the leader but for the last, while nothing else goes wrong; see sustainedFault.ts. */
export const SUSTAINED_FAULT_KINDS = [
  /** Its disk hangs, its process and links do not (hashicorp/raft 503). */
  'diskHangs',
  /** It receives nothing, and all others receive what it sends. */
  'deaf',
  'mute',
  'partitioned',
  'killed',
  'withoutPower',
  'frozen',
  /** One direction of one link is partitioned (Cloudflare, 2 November 2020). */
  'oneWay',
  /** Its disk takes no more log; the others have room. */
  'full',
  /** No disk has room: all go on serving reads. */
  'allFull',
  /** Its data directory is gone; it starts again with an empty one, and heals. */
  'wiped',
  /** So is that of the node that bootstrapped the cluster alone, and its configuration file knows of no other. */
  'oldFile',
] as const;
export type SustainedFaultKind = (typeof SUSTAINED_FAULT_KINDS)[number];
