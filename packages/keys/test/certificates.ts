/** Certificates for tests, put together by hand: Node can read them, but not make them. */
import { createHash, generateKeyPairSync, type KeyObject, sign } from "node:crypto";

const element = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const contents = Buffer.concat(parts);
  const { length } = contents;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), contents]);
};
const sequence = (...parts: readonly Uint8Array[]): Buffer => element(0x30, ...parts);
const text = (value: string): Buffer => element(0x0c, Buffer.from(value));
const id = (hex: string): Buffer => element(0x06, Buffer.from(hex, "hex"));
const time = (value: string): Buffer => element(0x17, Buffer.from(value));

const COMMON_NAME = "550403";
const ORGANISATION = "55040a";
const SUBJECT_KEY_IDENTIFIER = "551d0e";
const AUTHORITY_KEY_IDENTIFIER = "551d23";
const ECDSA_SHA256 = sequence(id("2a8648ce3d040302"));
const RSA_SHA256 = sequence(id("2a864886f70d01010b"), Buffer.from("0500", "hex"));

/** Whoever signs. */
export interface Issuer {
  readonly name: string;
  readonly privateKey: KeyObject;
  readonly identifier: Buffer;
}

/** A certificate and what it takes to sign others with it. */
export interface Certificate extends Issuer {
  readonly der: Buffer;
}

const nameOf = (name: string): Buffer =>
  sequence(
    ...name.split("/").map((part, index, all) => {
      const isOrganisation = index === 0 && all.length > 1;
      return element(0x31, sequence(id(isOrganisation ? ORGANISATION : COMMON_NAME), text(part)));
    }),
  );

let serial = 1;

/** "Organisation/Common name" or a common name; signed by the issuer, or by itself. */
export const makeCertificate = (wanted: {
  readonly name: string;
  readonly issuer?: Issuer;
  /** All certificates of a chain must be of the same kind. */
  readonly isRsa?: boolean;
}): Certificate => {
  const isRsa = wanted.isRsa ?? false;
  const { publicKey, privateKey } = isRsa
    ? generateKeyPairSync("rsa", { modulusLength: 2048 })
    : generateKeyPairSync("ec", { namedCurve: "P-256" });
  const algorithm = isRsa ? RSA_SHA256 : ECDSA_SHA256;
  const spki = publicKey.export({ format: "der", type: "spki" });
  const identifier = createHash("sha1").update(spki).digest();
  const issuer = wanted.issuer ?? { name: wanted.name, privateKey, identifier };
  serial += 1;
  const extension = (kind: string, value: Buffer): Buffer => sequence(id(kind), element(0x04, value));
  const body = sequence(
    element(0xa0, element(0x02, Buffer.from([2]))),
    element(0x02, Buffer.from([serial & 0x7f])),
    algorithm,
    nameOf(issuer.name),
    sequence(time("200101000000Z"), time("490101000000Z")),
    nameOf(wanted.name),
    spki,
    element(
      0xa3,
      sequence(
        extension(SUBJECT_KEY_IDENTIFIER, element(0x04, identifier)),
        extension(AUTHORITY_KEY_IDENTIFIER, sequence(element(0x80, issuer.identifier))),
      ),
    ),
  );
  const signature = sign("sha256", body, issuer.privateKey);
  const der = sequence(body, algorithm, element(0x03, Buffer.from([0]), signature));
  return { name: wanted.name, privateKey, identifier, der };
};
