import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { withNodeStopped } from '../../offline/directory.ts';
import { type Examination, examineNode } from '../../offline/examination.ts';
import { readOnlyDisk } from '../../offline/read-only-disk.ts';
import { EXIT_FAILURE, EXIT_OK } from '../terminal/output.ts';

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
    lines.push(`meta       ok: node ${meta.nodeId} of cluster ${meta.clusterId}, ${lifecycle}`);
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
