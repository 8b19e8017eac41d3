import { RaftkvError } from '../base/errors.ts';
import type { Logger } from '../base/logger.ts';
import { readAuthFile } from '../config/auth-file.ts';
import type { Config } from '../config/schema.ts';
import { type Credentials, createCredentials } from '../server/credentials.ts';

/** What a node reads from files of its own beside the configuration, and reads again on SIGHUP. */
export interface Secrets {
  /** Null where nobody has to log in. */
  readonly credentials: Credentials | null;
  /** Reads the files again. One that is wrong is logged and changes nothing. */
  reload(): void;
}

/** Throws AUTH_FILE_INVALID. */
export function loadSecrets({ authFile }: Config, logger: Logger): Secrets {
  const read = (path: string) => {
    const { credentials, warnings } = readAuthFile(path);
    for (const warning of warnings) logger.warn({}, warning);
    return credentials;
  };
  const credentials = authFile === undefined ? null : createCredentials(read(authFile));
  return {
    credentials,
    reload() {
      if (credentials === null || authFile === undefined) return;
      keepingOld(logger, () => {
        const entries = read(authFile);
        credentials.replace(entries);
        logger.info({ authFile, entries: entries.length }, 'authFile read again');
      });
    },
  };
}

function keepingOld(logger: Logger, read: () => void): void {
  try {
    read();
  } catch (error) {
    if (!(error instanceof RaftkvError)) throw error;
    const { code, remedy, message } = error;
    logger.error({ code, remedy }, `${message}; what was read before stays in force`);
  }
}
