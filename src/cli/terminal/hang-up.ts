import { closeSync, openSync } from 'node:fs';

/** The terminal that this process belongs to. Opening it fails if there is none. */
const OWN_TERMINAL = '/dev/tty';

/**
 * Tells the two meanings of SIGHUP apart: the terminal that this process was started from has gone, or somebody asks
 * for the files to be read again. Call it at the start; the returned function answers at a signal.
 */
export function watchTerminal(): () => boolean {
  const hadTerminal = hasTerminal();
  return () => hadTerminal && !hasTerminal();
}

function hasTerminal(): boolean {
  try {
    closeSync(openSync(OWN_TERMINAL, 'r'));
    return true;
  } catch {
    return false;
  }
}
