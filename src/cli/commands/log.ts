import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { RaftkvError } from '../../base/errors.ts';
import {
  BATCH_HEADER_BYTES,
  CLOCK_PROPOSER,
  COMMAND_HEADER_BYTES,
  CommandReader,
  readBatchHeader,
} from '../../kv/batch.ts';
import { Op } from '../../kv/types.ts';
import { readOnlyDisk, withNodeStopped } from '../../offline/directory.ts';
import { type Examination, examineNode } from '../../offline/examination.ts';
import { decodeConfiguration } from '../../raft/state/configuration.ts';
import { ENTRY_HEADER_BYTES } from '../../raft/state/entry.ts';
import type { Entry } from '../../raft/state/types.ts';
import { EXIT_FAILURE, EXIT_OK } from '../terminal/output.ts';

/** `raftkv log dump`: what a node's log holds, entry by entry, read while the node is stopped. */

export interface LogDumpOptions {
  /** Indexes, both included. */
  readonly from?: number;
  readonly to?: number;
  readonly json: boolean;
}

/** Commands of one entry shown to a person; the rest is counted. */
const COMMANDS_SHOWN_MAX = 4;
/** Written at once: the log may be longer than memory, and its entries are read faster than a terminal shows them. */
const OUTPUT_BYTES_MAX = 1024 * 1024;

interface CommandShown {
  readonly op: string;
  readonly key: string;
  readonly valueBytes: number;
}

const OP_NAMES = new Map<number, string>(Object.entries(Op).map(([name, code]) => [code, name]));

/** @throws RaftkvError WAL_DAMAGED after the good entries before the damage were printed; and what `examineNode` throws. */
export async function logDumpCommand(directory: string, options: LogDumpOptions): Promise<void> {
  const { from = 1, to = Number.POSITIVE_INFINITY, json } = options;
  const out = createOutput();
  // The reader has closed the pipe, as in `raftkv log dump … | head`.
  process.stdout.once('error', () => process.exit(EXIT_OK));
  const onEntry = (entry: Entry) => {
    if (entry.index < from || entry.index > to) return;
    out.line(json ? JSON.stringify(describeEntry(entry)) : formatEntry(entry));
  };
  const { findings } = await withNodeStopped(directory, () =>
    examineNode({ disk: readOnlyDisk, directory, headsOnly: true, onEntry }),
  );
  out.end();
  const fault = findings.find((finding) => finding.fault?.code === 'WAL_DAMAGED')?.fault;
  if (fault !== null && fault !== undefined) {
    throw new RaftkvError(fault.code, fault.message, '`raftkv log verify` reports everything that is damaged.', fault);
  }
}

function createOutput() {
  let text = '';
  const flush = () => {
    process.stdout.write(text);
    text = '';
  };
  return {
    line(line: string) {
      text += `${line}\n`;
      if (text.length >= OUTPUT_BYTES_MAX) flush();
    },
    end: flush,
  };
}

function describeEntry({ index, term, kind, bytes }: Entry): object {
  const entry = { index, term, kind, bytes: bytes.length };
  if (kind === 'configuration') return { ...entry, configuration: decodeConfiguration(bytes, ENTRY_HEADER_BYTES) };
  if (kind === 'noop') return entry;
  const { timeMs, proposer, sessionId, sequence } = readBatchHeader(bytes, ENTRY_HEADER_BYTES);
  return { ...entry, timeMs, proposer, sessionId, sequence, commands: commandsOf(bytes) };
}

function formatEntry(entry: Entry): string {
  const { index, term, kind, bytes } = entry;
  return `${index}  term ${term}  ${kind}  ${bytes.length} bytes${detailsOf(entry)}`;
}

function detailsOf({ kind, bytes }: Entry): string {
  if (kind === 'noop') return '';
  if (kind === 'configuration') {
    const { voters, votersOutgoing, learners } = decodeConfiguration(bytes, ENTRY_HEADER_BYTES);
    const parts = [`voters ${voters.join(',')}`];
    if (votersOutgoing.length > 0) parts.push(`outgoing ${votersOutgoing.join(',')}`);
    if (learners.length > 0) parts.push(`learners ${learners.join(',')}`);
    return `  ${parts.join('; ')}`;
  }
  const { timeMs, proposer, sessionId, sequence } = readBatchHeader(bytes, ENTRY_HEADER_BYTES);
  const time = new Date(timeMs).toISOString();
  if (proposer === CLOCK_PROPOSER) return `  ${time}  time only`;
  const commands = commandsOf(bytes);
  const shown = commands.slice(0, COMMANDS_SHOWN_MAX).map(({ op, key, valueBytes }) => {
    const value = valueBytes === 0 ? '' : ` (${valueBytes} bytes)`;
    // Keys may hold any byte but spaces; a terminal should not obey them.
    return `${op}${key === '' ? '' : ` ${/^[!-~]+$/.test(key) ? key : JSON.stringify(key)}`}${value}`;
  });
  const more = commands.length - shown.length;
  const rest = more > 0 ? `, and ${more} more` : '';
  return `  ${time}  node ${proposer} session ${sessionId} batch ${sequence}  ${shown.join(', ')}${rest}`;
}

function commandsOf(bytes: Buffer): CommandShown[] {
  const reader = new CommandReader();
  const commands: CommandShown[] = [];
  let offset = ENTRY_HEADER_BYTES + BATCH_HEADER_BYTES;
  while (offset + COMMAND_HEADER_BYTES <= bytes.length) {
    offset = reader.read(bytes, offset);
    const op = OP_NAMES.get(reader.op) ?? `op ${reader.op}`;
    commands.push({ op, key: reader.key(bytes), valueBytes: reader.valueLength });
  }
  return commands;
}

/** `raftkv log verify`: walks a node's data directory while the node is stopped, and changes nothing in it. */

export interface LogVerifyOptions {
  readonly json: boolean;
}

/** Gives the exit code: success if all files are intact. @throws RaftkvError as `examineNode`. */
export async function logVerifyCommand(directory: string, { json }: LogVerifyOptions): Promise<number> {
  const examination = await withNodeStopped(directory, () => examineNode({ disk: readOnlyDisk, directory }));
  process.stdout.write(json ? describeAsJson(directory, examination) : describe(directory, examination));
  return examination.findings.some(({ fault }) => fault !== null) ? EXIT_FAILURE : EXIT_OK;
}

function describe(directory: string, examination: Examination): string {
  const { findings, meta, snapshots, log } = examination;
  const lines: string[] = [];
  if (meta !== null) {
    const lifecycle = meta.lifecycle === 'normal' ? 'normal' : `${meta.lifecycle}, without a vote`;
    const history = meta.clusterId === '' ? 'no history yet' : `cluster id ${meta.clusterId}`;
    lines.push(`meta       ok: node ${meta.nodeId} of cluster ${meta.clusterName}, ${history}, ${lifecycle}`);
  }
  for (const { index, term, items, byteLength } of snapshots) {
    lines.push(`snapshot   ok: up to entry ${index} of term ${term}, ${items} items, ${byteLength} bytes`);
  }
  if (log !== null) {
    const { firstIndex, lastIndex, lastTerm, report } = log;
    const range = lastIndex < firstIndex ? `empty, after entry ${lastIndex}` : `entries ${firstIndex} to ${lastIndex}`;
    const torn =
      report.tornBytes > 0
        ? `; an unfinished last write of ${report.tornBytes} bytes, which the next start truncates`
        : '';
    lines.push(`log        ok: ${range}, the last of term ${lastTerm}, in ${report.segments} files${torn}`);
  }
  const faults = findings.flatMap(({ fault }) => (fault === null ? [] : [fault]));
  for (const { code, message } of faults) lines.push(`DAMAGED    ${message} (${code})`);
  const aside = join(directory, 'damaged');
  if (existsSync(aside)) lines.push(`note       files that were found damaged earlier are in ${aside}`);
  const verdict =
    faults.length === 0
      ? 'All files are intact.'
      : 'Nothing was changed. A member of a cluster repairs itself when it is started: see docs/operations.md.';
  return `${lines.join('\n')}\n\n${verdict}\n`;
}

function describeAsJson(directory: string, { findings, meta, snapshots, log }: Examination): string {
  const parts = findings.map(({ path, fault }) =>
    fault === null ? { path, ok: true } : { path, ok: false, code: fault.code, error: fault.message },
  );
  const shown = snapshots.map(({ configuration: _, ...snapshot }) => snapshot);
  const ok = parts.every((part) => part.ok);
  return `${JSON.stringify({ directory, ok, parts, meta, snapshots: shown, log }, null, 2)}\n`;
}
