import { healsFromDamage } from './healing.ts';

/** Two hundred flipped bits, spread over the log and the snapshots. */
healsFromDamage({ flips: 200, flipsPerHistory: 10 });
