import { createPrivateKey, createPublicKey, type KeyObject, X509Certificate } from "node:crypto";
import { childrenOf, type DerElement, readElement } from "./der.ts";

/** Largest key material that is looked at: certificates are far smaller. */
const DER_BYTES_MAX = 65_536;
const SEQUENCE = 0x30;
const EXTENSIONS = 0xa3;
const VERSION = 0xa0;
const OCTET_STRING = 0x04;
/** 2.5.29.14, with its tag and length. */
const SUBJECT_KEY_IDENTIFIER = Buffer.from("0603551d0e", "hex");

/** What is kept of an X.509 certificate or a PKCS#8 key. */
export interface KeyMaterial {
  readonly kind: "X509" | "PKCS8";
  readonly publicKey: KeyObject;
  /** The certificate itself, to check signatures with. */
  readonly certificate: X509Certificate | undefined;
  /** Numbers that it can be found by, in hexadecimal: serial number and issuer, subject key identifier. */
  readonly ids: readonly string[];
  /** Name and identifier, if it has any: what it is called when nobody says otherwise. */
  readonly description: string | undefined;
}

/** Understands key material: undefined for what is neither a certificate nor a private key, or is out of all bounds. */
export const parseKeyMaterial = (bytes: Uint8Array): KeyMaterial | undefined => {
  if (bytes.length > DER_BYTES_MAX) return undefined;
  const outer = readElement(bytes, 0, bytes.length);
  if (outer?.tag !== SEQUENCE || outer.end !== bytes.length) return undefined;
  // OpenSSL is only asked about what has the form of one or the other; it throws for all that is not right inside.
  return childrenOf(bytes, outer)?.[0]?.tag === SEQUENCE ? parseCertificate(bytes, outer) : parsePrivateKey(bytes);
};

const parseCertificate = (bytes: Uint8Array, outer: DerElement): KeyMaterial | undefined => {
  const found = partsOf(bytes, outer);
  if (found === undefined) return undefined;
  try {
    const certificate = new X509Certificate(bytes);
    const { publicKey } = certificate;
    if (!isSound(publicKey)) return undefined;
    const serial = hex(found.serial);
    const ids = [`${serial}${hex(found.issuer)}`, ...(found.identifier === undefined ? [] : [hex(found.identifier)])];
    const description = `${nameOf(certificate)}: ${found.identifier === undefined ? serial : hex(found.identifier)}`;
    return { kind: "X509", publicKey, certificate, ids, description };
  } catch {
    return undefined;
  }
};

/** Nothing of a private key is kept but its public half. */
const parsePrivateKey = (bytes: Uint8Array): KeyMaterial | undefined => {
  try {
    const { buffer, byteOffset, length } = bytes;
    const key = Buffer.from(buffer, byteOffset, length);
    const privateKey = createPrivateKey({ key, format: "der", type: "pkcs8" });
    const publicKey = createPublicKey(privateKey);
    if (!isSound(publicKey)) return undefined;
    return { kind: "PKCS8", publicKey, certificate: undefined, ids: [], description: undefined };
  } catch {
    return undefined;
  }
};

/** An RSA key needs an odd modulus of some size and an exponent that is odd and not 1; everything else OpenSSL has checked. */
const isSound = (key: KeyObject): boolean => {
  if (key.asymmetricKeyType !== "rsa") return true;
  const { n, e } = key.export({ format: "jwk" });
  if (n === undefined || e === undefined) return false;
  const [modulus, exponent] = [Buffer.from(n, "base64url"), Buffer.from(e, "base64url")];
  const isOdd = (number: Buffer): boolean => ((number.at(-1) ?? 0) & 1) === 1;
  return modulus.length >= 64 && isOdd(modulus) && isOdd(exponent) && !(exponent.length === 1 && exponent[0] === 1);
};

interface Parts {
  readonly serial: Uint8Array;
  readonly issuer: Uint8Array;
  readonly identifier: Uint8Array | undefined;
}

/** The parts of a certificate that Node does not tell of. Source: RFC 5280, section 4.1. */
const partsOf = (bytes: Uint8Array, outer: DerElement): Parts | undefined => {
  const body = childrenOf(bytes, outer)?.[0];
  const fields = body === undefined ? undefined : childrenOf(bytes, body);
  if (fields === undefined) return undefined;
  const [serial, , issuer] = fields[0]?.tag === VERSION ? fields.slice(1) : fields;
  if (serial === undefined || issuer === undefined) return undefined;
  const contents = (element: DerElement): Uint8Array => bytes.subarray(element.start, element.end);
  return { serial: contents(serial), issuer: contents(issuer), identifier: identifierIn(bytes, fields) };
};

const identifierIn = (bytes: Uint8Array, fields: readonly DerElement[]): Uint8Array | undefined => {
  const holder = fields.find(({ tag }) => tag === EXTENSIONS);
  const list = holder === undefined ? undefined : childrenOf(bytes, holder)?.[0];
  for (const extension of (list === undefined ? undefined : childrenOf(bytes, list)) ?? []) {
    const parts = childrenOf(bytes, extension) ?? [];
    const [id, value] = [parts[0], parts.at(-1)];
    if (id === undefined || value?.tag !== OCTET_STRING) continue;
    if (!SUBJECT_KEY_IDENTIFIER.equals(bytes.subarray(id.from, id.end))) continue;
    const inner = readElement(bytes, value.start, value.end);
    if (inner?.tag === OCTET_STRING) return bytes.subarray(inner.start, inner.end);
  }
  return undefined;
};

/** The subject as the kernel words it: organisation and common name, without saying the former twice, or an address. */
const nameOf = (certificate: X509Certificate): string => {
  const one = (key: string): string | undefined => {
    const match = certificate.subject.split("\n").find((line) => line.startsWith(`${key}=`));
    return match === undefined ? undefined : Buffer.from(match.slice(key.length + 1), "utf8").toString("latin1");
  };
  const [organisation, common, address] = [one("O"), one("CN"), one("emailAddress")];
  if (common === undefined) return organisation ?? address ?? "";
  const repeats = organisation !== undefined && organisation.length >= 7 && common.startsWith(organisation.slice(0, 7));
  return organisation === undefined || repeats ? common : `${organisation}: ${common}`;
};

const hex = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("hex");

/** Whether one certificate was signed by another's key: "foreign" if it names somebody else as its issuer. */
export const checkSignature = (subject: KeyMaterial, issuer: KeyMaterial): "good" | "bad" | "foreign" => {
  if (subject.certificate === undefined || issuer.certificate === undefined) return "foreign";
  if (!subject.certificate.checkIssued(issuer.certificate)) return "foreign";
  return subject.certificate.verify(issuer.publicKey) ? "good" : "bad";
};
