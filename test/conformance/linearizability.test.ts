import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { check, checkPartitioned, type Operation } from '../support/linearizability/checker.ts';
import {
  type KvInput,
  kvModel,
  type RegisterInput,
  type RegisterOutput,
  registerModel,
} from '../support/linearizability/models.ts';
import { conformanceFolder } from '../support/shared-conformance.ts';

/** Histories that others recorded and judged; the checker must give every verdict. */
const folder = conformanceFolder('linearizability');
const LIMITS = { timeLimitMs: 15_000 };

describe.skipIf(folder === null)('verdicts of recorded histories', () => {
  const verdicts = folder === null ? '' : readFileSync(join(folder, 'jepsen-verdicts.txt'), 'utf8');
  const jepsen = verdicts
    .trim()
    .split('\n')
    .map((line) => line.trim().split(/\s+/));
  it('knows the 102 verdicts', () => expect(jepsen).toHaveLength(102));
  for (const [file = '', verdict] of jepsen) {
    it(`${file} is ${verdict}`, () => {
      const history = readJepsen(readFileSync(join(folder ?? '', 'jepsen', file), 'utf8'));
      expect(check(registerModel, history, LIMITS).verdict).toBe(verdict);
    });
  }

  for (const file of folder === null ? [] : readdirSync(join(folder, 'kv'))) {
    const verdict = file.endsWith('-ok.txt') ? 'linearizable' : 'not-linearizable';
    it(`${file} is ${verdict}`, () => {
      const history = readKv(readFileSync(join(folder ?? '', 'kv', file), 'utf8'));
      expect(checkPartitioned(kvModel, history, (input) => input.key, LIMITS).verdict).toBe(verdict);
    });
  }
});

interface Line<Input, Output> {
  readonly client: number;
  readonly type: string;
  /** For an invocation. */
  readonly input: Input;
  /** For a completion that tells the outcome. */
  readonly output: Output | undefined;
}

/** Pairs each client's invocation with its completion; the line's number is the moment. */
function pair<Input, Output>(lines: readonly Line<Input, Output>[]): Operation<Input, Output>[] {
  const open = new Map<number, { input: Input; call: number }>();
  const operations: Operation<Input, Output>[] = [];
  lines.forEach(({ client, type, input, output }, moment) => {
    const begun = open.get(client);
    if (type === 'invoke') {
      if (begun !== undefined) throw new Error(`line ${moment + 1}: client ${client} calls twice`);
      open.set(client, { input, call: moment });
      return;
    }
    if (begun === undefined) throw new Error(`line ${moment + 1}: client ${client} returns from nothing`);
    open.delete(client);
    operations.push({ client, ...begun, output, return: moment });
  });
  for (const [client, begun] of open) operations.push({ client, ...begun, output: undefined, return: Infinity });
  return operations;
}

/** `INFO  jepsen.util - 3	:ok	:cas	[3 0]` */
function readJepsen(text: string): Operation<RegisterInput, RegisterOutput>[] {
  const lines: Line<RegisterInput, RegisterOutput>[] = [];
  for (const [, client, type = '', name, value = ''] of text.matchAll(/ - (\d+)\s+:(\w+)\s+:(\w+)\s+(.*)$/gm)) {
    const numbers = [...value.matchAll(/\d+/g)].map(Number);
    const [first = 0, second = 0] = numbers;
    const input: RegisterInput =
      name === 'read'
        ? { kind: 'read' }
        : name === 'write'
          ? { kind: 'write', value: first }
          : { kind: 'cas', from: first, to: second };
    const read = input.kind === 'read' ? (numbers[0] ?? null) : true;
    const output = type === 'ok' ? read : type === 'fail' && name === 'cas' ? false : undefined;
    lines.push({ client: Number(client), type, input, output });
  }
  return pair(lines);
}

/** `{:process 0, :type :ok, :f :append, :key "0", :value "x 0 0 y"}` */
function readKv(text: string): Operation<KvInput, string>[] {
  const lines: Line<KvInput, string>[] = [];
  const pattern = /:process (\d+), :type :(\w+), :f :(\w+), :key "([^"]*)", :value (?:nil|"([^"]*)")/g;
  for (const [, client, type = '', name, key = '', value = ''] of text.matchAll(pattern)) {
    if (name !== 'get' && name !== 'put' && name !== 'append') throw new Error(`unknown operation ${name}`);
    lines.push({ client: Number(client), type, input: { kind: name, key, value }, output: value });
  }
  return pair(lines);
}
