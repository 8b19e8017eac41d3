import { replacesMembers } from './members.ts';

replacesMembers({ requestsBetween: 150, pauseBetweenRequestsMs: 2, askEveryNode: false });
