/**
 * As much of DER as it takes to find the parts of a certificate: definite lengths of up to four bytes, tags of one byte,
 * every length checked against what there is. Source: ITU-T X.690.
 */

/** One element: its tag, and where its contents are. */
export interface DerElement {
  readonly tag: number;
  /** Index of the element's first byte. */
  readonly from: number;
  /** Index of the first byte of its contents. */
  readonly start: number;
  /** Index after its last byte. */
  readonly end: number;
}

const LONG_FORM = 0x80;
const LENGTH_BYTES_MAX = 4;
/** Children that are looked at; no certificate has nearly as many in one place. */
const CHILDREN_MAX = 1024;

/** The element at an index, which must end at or before `limit`: undefined if there is none. */
export const readElement = (bytes: Uint8Array, from: number, limit: number): DerElement | undefined => {
  const [tag, first] = [bytes[from], bytes[from + 1]];
  if (tag === undefined || first === undefined || from + 2 > limit || (tag & 0x1f) === 0x1f) return undefined;
  if (first < LONG_FORM) return within({ tag, from, start: from + 2, end: from + 2 + first }, limit);
  const lengthBytes = first - LONG_FORM;
  if (lengthBytes === 0 || lengthBytes > LENGTH_BYTES_MAX || from + 2 + lengthBytes > limit) return undefined;
  let length = 0;
  for (let index = 0; index < lengthBytes; index += 1) length = length * 256 + bytes[from + 2 + index]!;
  const start = from + 2 + lengthBytes;
  return within({ tag, from, start, end: start + length }, limit);
};

const within = (element: DerElement, limit: number): DerElement | undefined =>
  element.end <= limit ? element : undefined;

/** The elements inside one: undefined if they do not fill it exactly. */
export const childrenOf = (bytes: Uint8Array, parent: DerElement): readonly DerElement[] | undefined => {
  const children: DerElement[] = [];
  for (let at = parent.start; at < parent.end;) {
    const child = readElement(bytes, at, parent.end);
    if (child === undefined || children.length === CHILDREN_MAX) return undefined;
    children.push(child);
    at = child.end;
  }
  return children;
};
