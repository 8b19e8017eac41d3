import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  configurationOf,
  decodeConfiguration,
  EMPTY_CONFIGURATION,
  encodeConfiguration,
  enterJoint,
  isVoter,
  leaveJoint,
  MEMBERS_MAX,
  members,
  simple,
  withDetail,
} from '../../../src/raft/state/configuration.ts';
import type { Configuration } from '../../../src/raft/state/types.ts';
import { configurationWith, detailWith } from '../configurations.ts';

const ADDRESS = { host: 'a.example', clientPort: 1, peerPort: 2, adminPort: 65_535 };
const idArbitrary = fc.integer({ min: 1, max: 9 });
const stepArbitrary = fc.record({ op: fc.constantFrom('voter', 'learner', 'remove', 'update'), id: idArbitrary });

/** Whatever may come of changes that are not refused. */
const configurationArbitrary = fc
  .tuple(fc.uniqueArray(idArbitrary, { minLength: 1 }), fc.array(fc.array(stepArbitrary)), fc.boolean())
  .map(([voters, changes, endsJoint]) => {
    let configuration = configurationOf(voters);
    for (const steps of changes)
      configuration = attempt(() => leaveJoint(enterJoint(configuration, steps, true)), configuration);
    if (endsJoint) configuration = enterJoint(configuration, [{ op: 'voter', id: 12 }], true);
    const first = configuration.details[0];
    return first === undefined
      ? configuration
      : withDetail(configuration, { ...first, address: ADDRESS, directoryId: 2 ** 47, joins: true, replaces: 3 });
  });

function attempt(change: () => Configuration, otherwise: Configuration): Configuration {
  try {
    return change();
  } catch {
    return otherwise;
  }
}

const textOf = (what: unknown) => Buffer.from(JSON.stringify(what));

describe('a configuration', () => {
  it('is the same after it was written and read', () => {
    fc.assert(
      fc.property(configurationArbitrary, fc.nat({ max: 30 }), (configuration, headroom) => {
        expect(decodeConfiguration(encodeConfiguration(configuration, headroom), headroom)).toEqual(configuration);
      }),
    );
  });

  it('describes each member once, and remembers who left until they come back', () => {
    fc.assert(
      fc.property(configurationArbitrary, (configuration) => {
        const ids = members(configuration).sort((a, b) => a - b);
        expect(configuration.details.map(({ id }) => id)).toEqual(ids);
        expect(configuration.removed.filter((id) => ids.includes(id))).toEqual([]);
      }),
    );
  });

  it('keeps a voter that becomes a learner as a voter of the old half', () => {
    const joint = enterJoint(configurationOf([1, 2, 3]), [{ op: 'learner', id: 3 }], true);
    expect(joint).toMatchObject({ voters: [1, 2], votersOutgoing: [1, 2, 3], learners: [], learnersNext: [3] });
    expect(isVoter(joint, 3)).toBe(true);
    expect(leaveJoint(joint)).toMatchObject({ voters: [1, 2], votersOutgoing: [], learners: [3], learnersNext: [] });
  });

  it('tells who was removed, newest last, and no more than it can hold', () => {
    let configuration = configurationOf([1]);
    for (let id = 2; id < 100; id++) {
      configuration = simple(simple(configuration, [{ op: 'learner', id }]), [{ op: 'remove', id }]);
    }
    expect(configuration.removed).toHaveLength(64);
    expect(configuration.removed.at(-1)).toBe(99);
    expect(simple(configuration, [{ op: 'learner', id: 99 }]).removed).not.toContain(99);
  });

  it('refuses to be read from anything else', () => {
    const good = configurationOf([1, 2, 3]);
    const detail = detailWith({ id: 1 });
    const bad: unknown[] = [
      null,
      [],
      'voters',
      { ...good, voters: undefined },
      { ...good, voters: [1, 2, '3'] },
      { ...good, voters: [3, 2, 1] },
      { ...good, voters: [1, 1, 2, 3] },
      { ...good, voters: [0, 1, 2] },
      { ...good, voters: [1, 2] },
      { ...good, learners: [3] },
      { ...good, learnersNext: [3] },
      { ...good, autoLeave: true },
      { ...good, removed: [1] },
      { ...good, details: good.details.slice(1) },
      { ...good, details: [...good.details].reverse() },
      { ...configurationOf([1]), details: [{ ...detail, directoryId: -1 }] },
      { ...configurationOf([1]), details: [{ ...detail, directoryId: 2 ** 48 }] },
      { ...configurationOf([1]), details: [{ ...detail, joins: 1 }] },
      { ...configurationOf([1]), details: [{ ...detail, address: { ...ADDRESS, host: '' } }] },
      { ...configurationOf([1]), details: [{ ...detail, address: { ...ADDRESS, peerPort: 65_536 } }] },
      { ...configurationWith({ voters: Array.from({ length: 3 * MEMBERS_MAX }, (_, i) => i + 1) }) },
      EMPTY_CONFIGURATION,
    ];
    expect(decodeConfiguration(textOf(good), 0)).toEqual(good);
    for (const what of bad) {
      expect(() => decodeConfiguration(textOf(what), 0), JSON.stringify(what)).toThrow(/^a configuration /);
    }
    expect(() => decodeConfiguration(Buffer.from('{"voters"'), 0)).toThrow('is no JSON');
    expect(() => decodeConfiguration(Buffer.alloc(300_000, ' '), 0)).toThrow('is too long');
  });

  it('throws nothing but its own error, whatever the bytes', () => {
    fc.assert(
      fc.property(fc.oneof(fc.json(), fc.string()), (text) => {
        try {
          decodeConfiguration(Buffer.from(text), 0);
        } catch (error) {
          expect(error).toMatchObject({ code: 'MESSAGE_INVALID' });
        }
      }),
    );
  });
});
