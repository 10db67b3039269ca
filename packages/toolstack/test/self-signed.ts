/**
 * A certificate for tests of TLS, made anew each time, so that no key is in the repository: X.509 version 1, self-signed
 * with ECDSA, valid for 2026 to 2049.
 */
import { generateKeyPairSync, sign } from "node:crypto";

const SEQUENCE = 0x30;
const SET = 0x31;
const INTEGER = 0x02;
const BIT_STRING = 0x03;
const OBJECT = 0x06;
const TEXT = 0x0c;
const UTC_TIME = 0x17;

const der = (tag: number, ...parts: readonly Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts);
  const { length } = content;
  const size = length < 128 ? [length] : length < 256 ? [0x81, length] : [0x82, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([tag, ...size]), content]);
};

/** A certificate for `name`, and its key, in PEM. */
export const selfSigned = (name: string): { readonly certificate: string; readonly privateKey: string } => {
  const { publicKey, privateKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const commonName = der(OBJECT, Buffer.from("550403", "hex"));
  const subject = der(SEQUENCE, der(SET, der(SEQUENCE, commonName, der(TEXT, Buffer.from(name)))));
  const ecdsaWithSha256 = der(SEQUENCE, der(OBJECT, Buffer.from("2a8648ce3d040302", "hex")));
  const times = ["260101000000Z", "491231235959Z"].map((time) => der(UTC_TIME, Buffer.from(time)));
  const body = der(
    SEQUENCE,
    der(INTEGER, Buffer.from([1])),
    ecdsaWithSha256,
    subject,
    der(SEQUENCE, ...times),
    subject,
    publicKey.export({ type: "spki", format: "der" }),
  );
  const signature = der(BIT_STRING, Buffer.from([0]), sign("sha256", body, privateKey));
  const lines = der(SEQUENCE, body, ecdsaWithSha256, signature)
    .toString("base64")
    .match(/.{1,64}/g)!;
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${lines.join("\n")}\n-----END CERTIFICATE-----\n`,
    privateKey: String(privateKey.export({ type: "pkcs8", format: "pem" })),
  };
};
