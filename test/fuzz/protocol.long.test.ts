import { comparesWithModel } from './protocol.ts';

/** The same with many more streams. */
comparesWithModel(400);
