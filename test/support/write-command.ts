import { WriteCommand } from '../../src/kv/batch.ts';
import type { Op } from '../../src/kv/types.ts';

/** A command with bytes of its own; key and value are latin1. */
export function commandOf(
  op: Op,
  key: string,
  value = '',
  { flags = 0, exptimeSeconds = 0, high = 0, low = 0 } = {},
): WriteCommand {
  const source = Buffer.from(`<${key}|${value}>`, 'latin1');
  const valueStart = key.length + 2;
  const command = new WriteCommand().begin(op, source, 1, 1 + key.length);
  return command.store(flags, exptimeSeconds, valueStart, valueStart + value.length).arg(high, low);
}
