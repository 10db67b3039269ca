/**
 * What a driver can ask for. A request is 32 bytes: id, operation and flags, a count, and five more words; a response
 * has the id, the operation and a status, and one word.
 */
import { EINVAL } from "@xenolith/abi";
import { SLOT_BYTES } from "./ring.ts";

/** Make granted pages reachable for the engine: `count` references follow. The response has their bus address. */
const ATTACH = 1;
/** Forget pages: the bus address follows. */
const DETACH = 2;
/** Copy `count` times: bus address of the source, of the destination, and the length follow. */
const COPY = 3;

/** ATTACH: the engine may write to the pages. */
const WRITABLE = 1;
/** ATTACH: the pages were granted as revokable. */
const REVOKABLE = 2;
/** COPY: the next request belongs to the same list. When one of a list fails, those behind it are not made. */
const MORE = 1;

const REFS_MAX = 5;
/** Bytes of one copy, and how often it is made at most. */
const LENGTH_MAX = 2 ** 20;
const TIMES_MAX = 2 ** 20;

/** A request in the device's own memory; nothing of it is ever looked up in the ring again. */
export type Request = { readonly id: number } & (
  | {
      readonly operation: "attach";
      readonly refs: readonly number[];
      readonly isWritable: boolean;
      readonly isRevokable: boolean;
    }
  | { readonly operation: "detach"; readonly address: number }
  | {
      readonly operation: "copy";
      readonly source: number;
      readonly dest: number;
      readonly lengthBytes: number;
      readonly times: number;
      readonly hasMore: boolean;
    }
  | {
      readonly operation: "invalid";
      /** It was meant to be part of a list that goes on. */
      readonly hasMore: boolean;
    }
);

/** Understands a request. What it cannot mean is `invalid`; there is nothing that makes it throw. */
export const decode = (slot: DataView): Request => {
  const id = word(slot, 0);
  const operation = slot.getUint16(4, true);
  const flags = slot.getUint16(6, true);
  const count = word(slot, 2);
  const invalid: Request = { id, operation: "invalid", hasMore: operation === COPY && (flags & MORE) !== 0 };
  switch (operation) {
    case ATTACH: {
      if (count < 1 || count > REFS_MAX || (flags & ~(WRITABLE | REVOKABLE)) !== 0) return invalid;
      const refs = Array.from({ length: count }, (_, index) => word(slot, 3 + index));
      return {
        id,
        operation: "attach",
        refs,
        isWritable: (flags & WRITABLE) !== 0,
        isRevokable: (flags & REVOKABLE) !== 0,
      };
    }
    case DETACH:
      return flags === 0 ? { id, operation: "detach", address: word(slot, 3) } : invalid;
    case COPY: {
      const lengthBytes = word(slot, 5);
      const isSound = lengthBytes <= LENGTH_MAX && count >= 1 && count <= TIMES_MAX && (flags & ~MORE) === 0;
      if (!isSound) return invalid;
      const hasMore = (flags & MORE) !== 0;
      return { id, operation: "copy", source: word(slot, 3), dest: word(slot, 4), lengthBytes, times: count, hasMore };
    }
    default:
      return invalid;
  }
};

const CODES = { attach: ATTACH, detach: DETACH, copy: COPY, invalid: 0 } as const;

/** The response to `request`: a whole slot, with nothing in it but what belongs there. */
export const encode = (request: Request, status: number, value: number): Uint8Array => {
  const slot = new DataView(new ArrayBuffer(SLOT_BYTES));
  slot.setUint32(0, request.id, true);
  slot.setUint16(4, CODES[request.operation], true);
  slot.setInt16(6, request.operation === "invalid" ? -EINVAL : status, true);
  slot.setUint32(8, value, true);
  return new Uint8Array(slot.buffer);
};

const word = (slot: DataView, index: number): number => slot.getUint32(index * 4, true);
