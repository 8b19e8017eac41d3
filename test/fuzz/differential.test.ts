import { comparesWithMemcached } from './differential.ts';

comparesWithMemcached(8);
