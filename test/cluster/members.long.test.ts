import { replacesMembers } from './members.ts';

/** Members are replaced under full load. */
replacesMembers({ requestsBetween: 2_000, pauseBetweenRequestsMs: 0, askEveryNode: true });
