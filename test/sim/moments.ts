import type { Core } from '../../src/raft/state/core.ts';
import type { Effects, Input } from '../../src/raft/state/types.ts';

/** Steps of a core after which a fault hurts most. */
export const MOMENTS = [
  'appended',
  'voted',
  'elected',
  'committed',
  'campaigned',
  'truncated',
  'followed',
  'stored',
  'compacted',
  'offered',
  'wanted',
  'installed',
  'reconfigured',
  'recovered',
] as const;
export type Moment = (typeof MOMENTS)[number];

export function isMoment(moment: Moment, core: Core, input: Input, effects: Effects, truncated: boolean): boolean {
  switch (moment) {
    case 'appended':
      return core.role === 'leader' && effects.append.length > 0;
    case 'voted':
      return effects.sendAfterPersist.some((message) => message.kind === 'voteReply' && message.granted);
    case 'elected':
      return core.role === 'leader' && core.leading?.firstIndex === effects.append[0]?.index;
    case 'committed':
      return core.role === 'leader' && input.kind === 'receive' && input.message.kind === 'appendReply';
    case 'campaigned':
      return core.role === 'candidate' && effects.hardState !== null;
    case 'followed':
      // A new term and its entries in one step.
      return effects.hardState !== null && effects.append.length > 0;
    case 'truncated':
      return truncated;
    case 'stored':
      return input.kind === 'snapshotStored';
    case 'compacted':
      return input.kind === 'compact';
    case 'offered':
      return effects.sendNow.some((message) => message.kind === 'snapshotOffer');
    case 'wanted':
      return effects.wantSnapshot !== null;
    case 'installed':
      return effects.install !== null;
    case 'reconfigured':
      return effects.configuration !== null;
    case 'recovered':
      return effects.recovered;
  }
}
