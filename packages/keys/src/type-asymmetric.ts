import { checkSignature, type KeyMaterial, parseKeyMaterial } from "./certificate.ts";
import { EBADMSG, EINVAL, EKEYREJECTED, ENOKEY, ENOPKG, EOPNOTSUPP } from "./errno.ts";
import { type Key, POSITIVE } from "./key.ts";
import type { KeyType, Match, TypeContext } from "./key-type.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import type { Restriction } from "./restriction.ts";
import { isGone } from "./state.ts";

/** What an asymmetric key is charged for: the certificate is public, but it takes room. */
const QUOTA_BYTES = 100;

/** A key's material; wrapped so that no other type's payload is mistaken for it. */
class AsymmetricPayload {
  readonly material: KeyMaterial;

  constructor(material: KeyMaterial) {
    this.material = material;
  }
}

const materialOf = (key: Key): KeyMaterial | undefined =>
  key.payload instanceof AsymmetricPayload ? key.payload.material : undefined;

const HEXADECIMAL = /^(?:[0-9a-f]{2})+$/i;

/** Keys of a keyring that are asymmetric, and good. */
const trustedIn = (keyring: Key): readonly Key[] =>
  linksOf(keyring)
    .list()
    .filter((key) => key.type === asymmetricType && key.state === POSITIVE && !isGone(key));

/**
 * Whether a certificate was signed by one of these keys. Source: security/keys, restrict_link_by_key_or_keyring.
 */
const checkSigned = (subject: KeyMaterial, signers: readonly Key[], context: TypeContext): number => {
  let found = -ENOKEY;
  for (const signer of signers) {
    const material = materialOf(signer);
    if (material === undefined) continue;
    const result = checkSignature(subject, material);
    if (result === "good") return signer.expiry >= 0 && context.now() >= signer.expiry ? -ENOKEY : 0;
    if (result === "bad") found = -EKEYREJECTED;
  }
  return found;
};

interface Trust {
  readonly trusted: Key | undefined;
  /** Whether what is in the keyring already may sign what is added. */
  readonly chain: boolean;
}

const signedBy = ({ trusted, chain }: Trust, context: TypeContext): Restriction => ({
  type: asymmetricType,
  trusted,
  check: (keyring, type, payload) => {
    if (type !== asymmetricType) return -EOPNOTSUPP;
    if (!(payload instanceof AsymmetricPayload)) return -ENOPKG;
    if (payload.material.certificate === undefined) return -ENOPKG;
    const named = trusted === undefined ? [] : isKeyring(trusted) ? trustedIn(trusted) : [trusted];
    return checkSigned(payload.material, [...named, ...(chain ? trustedIn(keyring) : [])], context);
  },
});

const RESTRICTION = /^key_or_keyring:([-+]?)(0x[0-9a-f]{1,8}|\d{1,11})(:chain)?$/i;

/** A number as C reads it: hexadecimal, octal or decimal; undefined if it has no meaning or does not fit 32 bits. */
const numberOf = (sign: string, digits: string): number | undefined => {
  const isOctal = /^0[0-7]+$/.test(digits);
  if (/^0\d/.test(digits) && !isOctal) return undefined;
  const value = (isOctal ? Number.parseInt(digits, 8) : Number(digits)) * (sign === "-" ? -1 : 1);
  return value >= -(2 ** 31) && value < 2 ** 31 ? value : undefined;
};

/** "builtin_trusted" and "builtin_and_secondary_trusted" trust nobody: the service comes without certificates of its own. */
const lookupRestriction = (text: string, context: TypeContext): Restriction | number => {
  if (text === "builtin_trusted" || text === "builtin_and_secondary_trusted") {
    return signedBy({ trusted: undefined, chain: false }, context);
  }
  const [, sign = "", digits = "", last] = RESTRICTION.exec(text) ?? [];
  const serial = numberOf(sign, digits);
  if (digits === "" || serial === undefined) return -EINVAL;
  const chain = last !== undefined;
  if (serial === 0 && chain) return signedBy({ trusted: undefined, chain }, context);
  const trusted = context.find(serial);
  return trusted === undefined ? -ENOKEY : signedBy({ trusted, chain }, context);
};

/** "id:" and hexadecimal digits finds what ends in them, "ex:" what is exactly that; everything else is a description. */
const matchPreparse = (match: Match): number => {
  if (match.description === "") return -EINVAL;
  const [, how, digits] = /^(id|ex):([^]*)$/.exec(match.description) ?? [];
  if (how === undefined || digits === undefined) return 0;
  if (!HEXADECIMAL.test(digits)) return -EINVAL;
  const wanted = digits.toLowerCase();
  match.iterate = true;
  match.compare = (key) =>
    materialOf(key)?.ids.some((id) => (how === "ex" ? id === wanted : id.endsWith(wanted))) ?? false;
  return 0;
};

/**
 * Certificates (X.509) and private keys (PKCS#8) in DER. They cannot be read; they restrict what can be linked into a keyring.
 * Source: keyrings(7), security/keys of the kernel's documentation.
 */
export const asymmetricType: KeyType = {
  name: "asymmetric",
  preparse: (prepared) => {
    if (prepared.bytes.length === 0) return -EINVAL;
    const material = parseKeyMaterial(prepared.bytes);
    if (material === undefined) return -EBADMSG;
    prepared.payload = new AsymmetricPayload(material);
    prepared.quotaBytes = QUOTA_BYTES;
    prepared.description = material.description;
    return 0;
  },
  instantiate: (key, prepared, context) => {
    const refusal = context.reserve(key, prepared.quotaBytes);
    if (refusal < 0) return refusal;
    key.payload = prepared.payload;
    return 0;
  },
  matchPreparse,
  lookupRestriction,
  describe: (key) => {
    const material = materialOf(key);
    if (material === undefined) return key.description;
    const id = material.ids.at(-1)?.slice(-8) ?? "";
    return `${key.description}: ${material.kind}.${material.publicKey.asymmetricKeyType ?? ""} ${id} []`;
  },
  destroy: (key) => {
    key.payload = undefined;
  },
};
