import { expect, it } from 'vitest';
import { RaftkvError } from '../../src/base/errors.ts';
import { createRateLimitedLog, silentLogger } from '../../src/base/logger.ts';
import { createManualClock } from '../support/manual-clock.ts';

it('a repeated warning is logged at once, then at most once per interval with the number suppressed', () => {
  const manual = createManualClock();
  const lines: object[] = [];
  const logger = { ...silentLogger, warn: (fields: object, message: string) => lines.push({ ...fields, message }) };
  const rateLimitedLog = createRateLimitedLog(manual.clock, logger, 1000);
  const error = new RaftkvError('FRAME_INVALID', 'bad bytes', 'do this');
  const line = { code: 'FRAME_INVALID', remedy: 'do this', message: 'bad bytes' };

  for (let i = 0; i < 5; i++) rateLimitedLog.warn('frames', error, { peer: 2 });
  rateLimitedLog.warn('others', new Error('plain'), {});
  expect(lines).toEqual([
    { ...line, peer: 2, suppressed: 0 },
    { message: 'plain', suppressed: 0 },
  ]);
  manual.advance(1000);
  rateLimitedLog.warn('frames', error, { peer: 3 });
  expect(lines.at(-1)).toEqual({ ...line, peer: 3, suppressed: 4 });
});
