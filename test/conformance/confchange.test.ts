import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import {
  type ConfigurationStep,
  EMPTY_CONFIGURATION,
  enterJoint,
  isJoint,
  leaveJoint,
  members,
  simple,
} from '../../src/raft/state/configuration.ts';
import type { Configuration } from '../../src/raft/state/types.ts';
import { parseTable, type TableCase } from '../support/datadriven.ts';
import { conformanceFolder } from '../support/shared-conformance.ts';

/**
 * etcd's tables of configuration changes, run verbatim. Each file is one story: every case goes on from where the one
 * before it ended, and every command, also a refused one, is an entry in the log. `next` tells when a member's progress
 * was begun, so that a change that starts one again for an existing member would show.
 */
const folder = conformanceFolder('etcd-raft/confchange');

describe.skipIf(folder === null)('etcd configuration-change tables', () => {
  for (const file of folder === null ? [] : readdirSync(folder).filter((name) => name.endsWith('.txt'))) {
    const cases = parseTable(readFileSync(join(folder ?? '', file), 'utf8'));
    const story = new Story();
    it(`${file} has cases`, () => expect(cases.length).toBeGreaterThan(0));
    for (const tableCase of cases) {
      it(`${file}:${tableCase.line}`, () => expect(story.run(tableCase)).toBe(tableCase.expected));
    }
  }
});

class Story {
  private configuration: Configuration = EMPTY_CONFIGURATION;
  /** For each member, the end of the log when it became one. */
  private next = new Map<number, number>();
  private lastIndex = 0;

  run(tableCase: TableCase): string {
    try {
      this.configuration = this.change(tableCase);
    } catch (error) {
      return (error as Error).message;
    } finally {
      this.lastIndex++;
    }
    return this.describe();
  }

  private change({ command, args, body }: TableCase): Configuration {
    const steps = body.split(/\s+/).flatMap((word) => (word === '' ? [] : [stepOf(word)]));
    switch (command) {
      case 'simple':
        return simple(this.configuration, steps);
      case 'enter-joint':
        return enterJoint(this.configuration, steps, args.get('autoleave')?.[0] === 'true');
      case 'leave-joint':
        return leaveJoint(this.configuration);
      default:
        throw new Error(`unknown command ${command}`);
    }
  }

  private describe(): string {
    const { voters, votersOutgoing, learners, learnersNext, autoLeave, details } = this.configuration;
    const ids = members(this.configuration).sort((a, b) => a - b);
    expect(
      details.map(({ id }) => id),
      'each member is described',
    ).toEqual(ids);
    const began = Math.max(this.lastIndex - 1, 1);
    this.next = new Map(ids.map((id) => [id, this.next.get(id) ?? began]));
    const list = (name: string, of: readonly number[]) => (of.length > 0 ? ` ${name}=(${of.join(' ')})` : '');
    const outgoing = isJoint(this.configuration) ? `&&(${votersOutgoing.join(' ')})` : '';
    const head = `voters=(${voters.join(' ')})${outgoing}${list('learners', learners)}${list('learners_next', learnersNext)}`;
    const rows = ids.map((id) => {
      const role = learners.includes(id) ? ' learner' : '';
      return `${id}: StateProbe match=0 next=${this.next.get(id)}${role}`;
    });
    return [`${head}${autoLeave ? ' autoleave' : ''}`, ...rows].join('\n');
  }
}

const OPS: Readonly<Record<string, ConfigurationStep['op']>> = {
  v: 'voter',
  l: 'learner',
  r: 'remove',
  u: 'update',
};

function stepOf(word: string): ConfigurationStep {
  const op = OPS[word.charAt(0)];
  if (op === undefined) throw new Error(`unknown step ${word}`);
  return { op, id: Number(word.slice(1)) };
}
