import { RaftkvError } from '../../base/errors.ts';
import type { Logger } from '../../base/logger.ts';
import type { PortTls, TlsIdentity } from '../../base/tls.ts';
import { readAuthFile } from '../../config/auth-file.ts';
import type { Config, TlsConfig } from '../../config/schema.ts';
import { type Credentials, createCredentials } from '../../server/clients/authenticator.ts';

/** Certificates and passwords, which a node reads from files of their own and reads again on SIGHUP. */
export interface Secrets {
  /** Null if clients need not log in. */
  readonly credentials: Credentials | null;
  /** Each null where that port is plain. */
  readonly tls: {
    readonly peers: TlsIdentity | null;
    readonly clients: PortTls | null;
    readonly admin: PortTls | null;
  };
  /** Reads the files again, and hands a changed certificate on. A file that is wrong is logged and changes nothing. */
  reload(replaceIdentity: (identity: TlsIdentity) => void): void;
}

interface Reader<T> {
  readonly initial: T;
  /** Reads again. */
  readonly read: () => T;
}

/** Throws AUTH_FILE_INVALID, TLS_INVALID. */
export async function loadSecrets(config: Config, nodeId: number, logger: Logger): Promise<Secrets> {
  const { authFile, tls } = config;
  const passwords = authFile === undefined ? null : firstReading(() => readPasswords(authFile, logger));
  const credentials = passwords === null ? null : createCredentials(passwords.initial);
  const identity = tls === undefined ? null : await identityReader(tls, config, nodeId, logger);
  return {
    credentials,
    tls: portsOf(tls, identity?.initial ?? null),
    reload(replaceIdentity) {
      if (passwords !== null) {
        keepingOld(logger, () => {
          credentials?.replace(passwords.read());
          logger.info({ authFile }, 'reloaded authFile');
        });
      }
      if (identity === null) return;
      keepingOld(logger, () => {
        replaceIdentity(identity.read());
        logger.info({ cert: tls?.cert }, 'reloaded certificate and authority; new connections use them');
      });
    },
  };
}

function firstReading<T>(read: () => T): Reader<T> {
  return { initial: read(), read };
}

function readPasswords(authFile: string, logger: Logger) {
  const { credentials, warnings } = readAuthFile(authFile);
  for (const warning of warnings) logger.warn({}, warning);
  return credentials;
}

async function identityReader(
  tls: TlsConfig,
  config: Config,
  nodeId: number,
  logger: Logger,
): Promise<Reader<TlsIdentity>> {
  // Loads node:tls, which takes some 20 ms of a start.
  const { readNodeTls } = await import('../../config/tls-files.ts');
  return firstReading(() => {
    const { identity, warnings } = readNodeTls(tls, config, nodeId);
    for (const warning of warnings) logger.warn({}, warning);
    return identity;
  });
}

function portsOf(tls: TlsConfig | undefined, identity: TlsIdentity | null): Secrets['tls'] {
  if (tls === undefined || identity === null) return { peers: null, clients: null, admin: null };
  const port = (security: TlsConfig['clients']): PortTls | null =>
    security === 'plain' ? null : { identity, clientCertificates: security === 'mutual' ? 'required' : 'none' };
  return { peers: tls.peers === 'plain' ? null : identity, clients: port(tls.clients), admin: port(tls.admin) };
}

function keepingOld(logger: Logger, read: () => void): void {
  try {
    read();
  } catch (error) {
    if (!(error instanceof RaftkvError)) throw error;
    const { code, remedy, message } = error;
    logger.error({ code, remedy }, `${message}; keeping the previously loaded files`);
  }
}
