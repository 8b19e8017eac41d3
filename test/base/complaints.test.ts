import { expect, it } from 'vitest';
import { createComplaints } from '../../src/base/complaints.ts';
import { RaftkvError } from '../../src/base/errors.ts';
import { silentLogger } from '../../src/base/logger.ts';
import { createManualClock } from '../transport/support.ts';

it('trouble that repeats is logged at once, then at most once per interval with how often it was not', () => {
  const manual = createManualClock();
  const lines: object[] = [];
  const logger = { ...silentLogger, warn: (fields: object, message: string) => lines.push({ ...fields, message }) };
  const complaints = createComplaints(manual.clock, logger, 1000);
  const error = new RaftkvError('FRAME_INVALID', 'bad bytes', 'do this');
  const line = { code: 'FRAME_INVALID', remedy: 'do this', message: 'bad bytes' };

  for (let i = 0; i < 5; i++) complaints.warn('frames', error, { peer: 2 });
  complaints.warn('others', new Error('plain'), {});
  expect(lines).toEqual([
    { ...line, peer: 2, notLogged: 0 },
    { message: 'plain', notLogged: 0 },
  ]);
  manual.advance(1000);
  complaints.warn('frames', error, { peer: 3 });
  expect(lines.at(-1)).toEqual({ ...line, peer: 3, notLogged: 4 });
});
