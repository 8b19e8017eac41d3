import { healsFromDamage } from './healing.ts';

healsFromDamage({ flips: 4, flipsPerHistory: 4 });
