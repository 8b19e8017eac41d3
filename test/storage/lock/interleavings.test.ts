import { describe, expect, it } from 'vitest';
import { Random } from '../../support/random.ts';
import { LockWorld, type Machine } from './lock-world.ts';

/**
 * Random processes want the lock, hold it, are paused, suspended, killed and started again, on disks that sometimes stall.
 * Whatever happens, no process acts as the holder once another has acquired the lock after it.
 */
const SEEDS = 400;
const SIMULATED_MS = 90_000;

const PLACES = [
  { boot: 'machine 1', pidNamespace: 'namespace 1' },
  { boot: 'machine 1', pidNamespace: 'namespace 2' },
  { boot: 'machine 2', pidNamespace: 'namespace 1' },
  null,
];

async function play(seed: number): Promise<LockWorld> {
  const random = new Random(seed);
  const stalls = random.next() * 0.05;
  const world: LockWorld = new LockWorld({
    random,
    delayMs: () => random.next() * (random.next() < stalls ? 12_000 : 20),
    created(claimant) {
      // The moments that matter: the claimant dies or is paused, and the holder that it thinks silent wakes up.
      const kind = random.next();
      if (kind < 0.1) world.at(random.next() * 100, claimant, () => claimant.kill());
      else if (kind < 0.2) world.at(random.next() * 100, claimant, () => claimant.pause(random.next() * 16_000));
      if (random.next() < 0.5)
        for (const each of world.processes) if (!each.isRunning) each.wakeIn(random.next() * 100);
    },
  });
  const machines: Machine[] = PLACES.map((place) => ({ place, rate: 0.99 + random.next() * 0.02 }));
  // A clock that is set while the other clock stood still would hide how long that was.
  const clocksAreSet = random.next() < 0.5;
  const busyness = 200 + random.next() * 5_000;

  const startOne = () => {
    const machine = machines[Math.floor(random.next() * machines.length)];
    if (machine === undefined) return;
    const used = world.processes.filter((each) => !each.isDead && each.machine === machine).map((each) => each.pid);
    const pid = [1, 2, 3, 4].find((each) => !used.includes(each));
    if (pid !== undefined) world.start(machine, pid);
  };
  const disturb = () => {
    const alive = world.processes.filter((each) => !each.isDead);
    const holders = alive.filter((each) => each.state === 'holding');
    const among = random.next() < 0.6 && holders.length > 0 ? holders : alive;
    const victim = among[Math.floor(random.next() * among.length)];
    const kind = random.next();
    const ms = random.next() * (random.next() < 0.5 ? 16_000 : 2_000);
    if (victim === undefined || kind < 0.4) startOne();
    else if (kind < 0.7) victim.pause(ms);
    else if (kind < 0.8) victim.kill();
    else if (kind < 0.85) void victim.release();
    else if (clocksAreSet) victim.wallSkewMs += (random.next() - 0.5) * 20_000;
    else for (const each of alive) if (each.machine === victim.machine) each.suspend(ms);
    world.at(random.next() * busyness, null, disturb);
  };
  const act = () => {
    for (const each of world.processes) each.act();
    world.at(random.next() * 100, null, act);
  };
  for (let i = 0; i < 3; i++) startOne();
  world.at(0, null, disturb);
  world.at(0, null, act);
  await world.run(SIMULATED_MS);
  return world;
}

describe('the lock, in random interleavings', () => {
  it(`never has two holders, in ${SEEDS} histories`, async () => {
    const totals = { acquired: 0, refused: 0, lost: 0, watched: 0 };
    for (let seed = 1; seed <= SEEDS; seed++) {
      const world = await play(seed).catch((error: unknown) => {
        throw new Error(`seed ${seed}: ${error}`);
      });
      totals.acquired += world.acquired.length;
      for (const { error, watched } of world.processes) {
        if (error?.code === 'DATA_DIR_LOCKED') totals.refused += 1;
        if (error?.code === 'DATA_DIR_LOST') totals.lost += 1;
        totals.watched += watched.length;
      }
    }
    // Each kind of ending occurs often enough to mean something.
    for (const total of Object.values(totals)) expect(total).toBeGreaterThan(SEEDS / 5);
  });
});
