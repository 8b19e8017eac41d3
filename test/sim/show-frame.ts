import { decodeMessage } from '../../src/replica/peers/wire.ts';
import { decodeBulk } from '../../src/replica/snapshots/bulk-wire.ts';

/** A frame between two nodes as one readable line. */
export function showFrame(frame: Buffer, from: number, to: number): string {
  const message = decodeMessage(frame, from, to);
  const fields: string[] = [];
  for (const [name, value] of Object.entries(message)) {
    if (name === 'kind' || name === 'from' || name === 'to') continue;
    if (name === 'entries') {
      const entries = value as readonly { index: number; term: number }[];
      const last = entries.at(-1);
      if (last !== undefined) fields.push(`entries ${entries[0]?.index}..${last.index}@${last.term}`);
    } else if (name === 'body') fields.push((value as Buffer).toString());
    else if (name === 'bytes') fields.push(`${(value as Buffer).length} bytes`);
    else fields.push(`${name} ${String(value)}`);
  }
  return `${message.kind} ${fields.join(' ')}`;
}

/** The same on the bulk link. */
export function showBulkFrame(frame: Buffer, from: number): string {
  const { kind, ...fields } = decodeBulk(frame, from);
  const shown = Object.entries(fields).map(([name, value]) =>
    Buffer.isBuffer(value) ? `${value.length} bytes` : `${name} ${value}`,
  );
  return `bulk ${kind} ${shown.join(' ')}`;
}
