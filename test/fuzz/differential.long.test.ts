import { comparesWithMemcached } from './differential.ts';

/** The same with many more streams. */
comparesWithMemcached(120);
