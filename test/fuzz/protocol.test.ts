import { comparesWithModel } from './protocol.ts';

comparesWithModel(24);
