import { type webcrypto, X509Certificate } from 'node:crypto';
import { isIP, SocketAddress } from 'node:net';
import { Integer, OctetString, Utf8String } from 'asn1js';
import {
  AttributeTypeAndValue,
  BasicConstraints,
  Certificate,
  Extension,
  ExtKeyUsage,
  GeneralName,
  GeneralNames,
  RelativeDistinguishedNames,
  Time,
} from 'pkijs';

/**
 * A certificate authority for development and tests, of X.509 certificates with keys on the curve P-256. The key of the
 * authority is given out once, like every other, and not kept.
 */

/** PEM. */
export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

export interface Validity {
  readonly notBefore: Date;
  readonly notAfter: Date;
}

export interface CertificateRequest {
  readonly commonName: string;
  readonly uris?: readonly string[];
  /** DNS names and IP addresses at which it serves; without any it is good for clients only. */
  readonly hosts?: readonly string[];
  /** The authority's own where absent. */
  readonly validity?: Validity;
}

export interface Authority extends KeyPair {
  issue(request: CertificateRequest): Promise<KeyPair>;
}

const KEY_ALGORITHM = { name: 'ECDSA', namedCurve: 'P-256' } as const;
const HASH = 'SHA-256';
const SERIAL_BYTES = 16;
const OID = {
  commonName: '2.5.4.3',
  basicConstraints: '2.5.29.19',
  alternativeNames: '2.5.29.17',
  extendedKeyUsage: '2.5.29.37',
  serverAuthentication: '1.3.6.1.5.5.7.3.1',
  clientAuthentication: '1.3.6.1.5.5.7.3.2',
} as const;
/** Kinds of a GeneralName (RFC 5280, 4.2.1.6). */
const NAME_KIND = { dns: 2, uri: 6, address: 7 } as const;

export async function createAuthority(commonName: string, validity: Validity): Promise<Authority> {
  const keys = await newKeys();
  const constraints = extension(OID.basicConstraints, true, new BasicConstraints({ cA: true }));
  const own = { issuer: commonName, issuerKey: keys.privateKey, subject: commonName, validity };
  const cert = await sign({ ...own, publicKey: keys.publicKey, extensions: [constraints] });
  return authorityOf({ cert, key: await keyPem(keys.privateKey) }, commonName, keys.privateKey, validity);
}

/** Reads an authority that `createAuthority` has made. Rejects if the key can't be read. */
export async function openAuthority(pair: KeyPair, validity: Validity): Promise<Authority> {
  const { subject } = new X509Certificate(pair.cert);
  const commonName = /^CN=(.*)$/m.exec(subject)?.[1] ?? '';
  const der = Buffer.from(pair.key.replaceAll(/-----[A-Z ]+-----|\s/g, ''), 'base64');
  const key = await crypto.subtle.importKey('pkcs8', der, KEY_ALGORITHM, true, ['sign']);
  return authorityOf(pair, commonName, key, validity);
}

function authorityOf(
  pair: KeyPair,
  commonName: string,
  privateKey: webcrypto.CryptoKey,
  validity: Validity,
): Authority {
  return {
    ...pair,
    async issue(request) {
      const theirs = await newKeys();
      const signed = await sign({
        issuer: commonName,
        issuerKey: privateKey,
        subject: request.commonName,
        validity: request.validity ?? validity,
        publicKey: theirs.publicKey,
        extensions: extensionsOf(request),
      });
      return { cert: signed, key: await keyPem(theirs.privateKey) };
    },
  };
}

function extensionsOf({ uris = [], hosts = [] }: CertificateRequest): Extension[] {
  const names = [...uris.map((uri) => new GeneralName({ type: NAME_KIND.uri, value: uri })), ...hosts.map(hostName)];
  const purposes = hosts.length > 0 ? [OID.serverAuthentication, OID.clientAuthentication] : [OID.clientAuthentication];
  const extensions = [
    extension(OID.basicConstraints, true, new BasicConstraints({ cA: false })),
    extension(OID.extendedKeyUsage, false, new ExtKeyUsage({ keyPurposes: [...purposes] })),
  ];
  if (names.length > 0) extensions.push(extension(OID.alternativeNames, false, new GeneralNames({ names })));
  return extensions;
}

function hostName(host: string): GeneralName {
  if (isIP(host) === 0) return new GeneralName({ type: NAME_KIND.dns, value: host });
  return new GeneralName({ type: NAME_KIND.address, value: new OctetString({ valueHex: addressBytes(host) }) });
}

function addressBytes(host: string): ArrayBuffer {
  if (isIP(host) === 4) return Uint8Array.from(host.split('.'), Number).buffer;
  // Brings the shortest form to eight groups, the last two of which may be written as an IPv4 address.
  const { address } = new SocketAddress({ address: host, family: 'ipv6' });
  const [left = '', right] = address.replace(/(\d+)\.(\d+)\.(\d+)\.(\d+)$/, ipv4AsGroups).split('::');
  const groupsOf = (text: string) => (text === '' ? [] : text.split(':'));
  const [head, tail] = [groupsOf(left), groupsOf(right ?? '')];
  const zeros = right === undefined ? 0 : 8 - head.length - tail.length;
  const groups = [...head, ...Array.from({ length: zeros }, () => '0'), ...tail].map((group) =>
    Number.parseInt(group, 16),
  );
  return Uint8Array.from(groups.flatMap((group) => [group >> 8, group & 0xff])).buffer;
}

function ipv4AsGroups(_: string, ...numbers: string[]): string {
  const [a = 0, b = 0, c = 0, d = 0] = numbers.slice(0, 4).map(Number);
  return `${(a * 256 + b).toString(16)}:${(c * 256 + d).toString(16)}`;
}

interface Unsigned {
  readonly issuer: string;
  readonly issuerKey: webcrypto.CryptoKey;
  readonly subject: string;
  readonly validity: Validity;
  readonly publicKey: webcrypto.CryptoKey;
  readonly extensions: Extension[];
}

async function sign({ issuer, issuerKey, subject, validity, publicKey, extensions }: Unsigned): Promise<string> {
  const certificate = new Certificate();
  // X.509 counts its versions from 0: this is version 3, the one that has extensions.
  certificate.version = 2;
  certificate.serialNumber = new Integer({ valueHex: serialNumber() });
  certificate.issuer = distinguishedName(issuer);
  certificate.subject = distinguishedName(subject);
  certificate.notBefore = new Time({ value: validity.notBefore });
  certificate.notAfter = new Time({ value: validity.notAfter });
  certificate.extensions = extensions;
  await certificate.subjectPublicKeyInfo.importKey(publicKey);
  await certificate.sign(issuerKey, HASH);
  return pem('CERTIFICATE', certificate.toSchema(true).toBER(false));
}

/** Positive and never shortened: the first byte is from 64 to 127. */
function serialNumber(): ArrayBuffer {
  const bytes = crypto.getRandomValues(new Uint8Array(SERIAL_BYTES));
  bytes[0] = 0x40 | ((bytes[0] ?? 0) & 0x3f);
  return bytes.buffer;
}

function distinguishedName(commonName: string): RelativeDistinguishedNames {
  const value = new Utf8String({ value: commonName });
  return new RelativeDistinguishedNames({
    typesAndValues: [new AttributeTypeAndValue({ type: OID.commonName, value })],
  });
}

function extension(
  extnID: string,
  critical: boolean,
  content: BasicConstraints | ExtKeyUsage | GeneralNames,
): Extension {
  return new Extension({ extnID, critical, extnValue: content.toSchema().toBER(false) });
}

function newKeys(): Promise<webcrypto.CryptoKeyPair> {
  return crypto.subtle.generateKey(KEY_ALGORITHM, true, ['sign', 'verify']);
}

async function keyPem(key: webcrypto.CryptoKey): Promise<string> {
  return pem('PRIVATE KEY', await crypto.subtle.exportKey('pkcs8', key));
}

function pem(what: string, bytes: ArrayBuffer): string {
  const lines =
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  return [`-----BEGIN ${what}-----`, ...lines, `-----END ${what}-----`, ''].join('\n');
}
