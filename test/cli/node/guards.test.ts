import { expect, it } from 'vitest';
import { guardedClock, guardedTransport } from '../../../src/cli/node/guards.ts';
import type { Transport } from '../../../src/transport/types.ts';
import { createManualClock } from '../../support/manual-clock.ts';

it('no timer fires and no turn completes while the lock is not held', async () => {
  const manual = createManualClock();
  let isHeld = true;
  const clock = guardedClock(manual.clock, () => isHeld);
  const seen: string[] = [];
  const schedule = (name: string) => {
    clock.after(10, () => seen.push(`timer ${name}`));
    clock.endOfTurn(() => seen.push(`turn ${name}`));
  };
  schedule('held');
  const cancel = clock.after(10, () => seen.push('cancelled'));
  cancel();
  await new Promise(setImmediate);
  manual.advance(10);
  expect(seen).toEqual(['turn held', 'timer held']);
  expect([clock.monotonicMs(), clock.wallMs()]).toEqual([10, 10]);
  schedule('lost');
  isHeld = false;
  await new Promise(setImmediate);
  manual.advance(10);
  expect(seen).toHaveLength(2);
});

it('no frame is sent while the lock is not held', async () => {
  const sent: string[] = [];
  const bare: Transport = {
    start: async () => void sent.push('start'),
    send: (peer) => sent.push(`send ${peer}`) > 0,
    isUp: (peer) => peer === 2,
    sendBulk: (peer) => sent.push(`bulk ${peer}`) > 0,
    setPeers: () => void sent.push('peers'),
    setClusterId: () => void sent.push('cluster id'),
    stop: async () => void sent.push('stop'),
  };
  let isHeld = true;
  const transport = guardedTransport(bare, () => isHeld);
  const events = {} as Parameters<Transport['start']>[0];
  await transport.start(events);
  transport.setPeers([], []);
  expect([transport.send(2, []), transport.sendBulk(2, []), transport.isUp(2), transport.isUp(3)]).toEqual([
    true,
    true,
    true,
    false,
  ]);
  isHeld = false;
  expect([transport.send(2, []), transport.sendBulk(2, [])]).toEqual([false, false]);
  await transport.stop();
  expect(sent).toEqual(['start', 'peers', 'send 2', 'bulk 2', 'stop']);
});
