import { members } from '../../src/raft/state/configuration.ts';
import type { Configuration, MemberDetail, NodeId } from '../../src/raft/state/types.ts';

/** Configurations as tests want them, whole: any shape, first directories, addresses unknown. */
export function configurationWith(parts: Partial<Configuration>): Configuration {
  const configuration: Configuration = {
    clusterId: '',
    voters: [],
    votersOutgoing: [],
    learners: [],
    learnersNext: [],
    autoLeave: false,
    removed: [],
    details: [],
    ...parts,
  };
  if (configuration.details.length > 0) return configuration;
  const ids = members(configuration).sort((a, b) => a - b);
  return { ...configuration, details: ids.map((id) => detailWith({ id })) };
}

export function detailWith(parts: Partial<MemberDetail> & { readonly id: NodeId }): MemberDetail {
  return { address: null, directoryId: 0, joins: false, replaces: 0, ...parts };
}
