/**
 * The leaves of the struct codec: integers, handles and byte strings, little endian, in the 32-bit x86 layout.
 * A `Layout` says how many bytes something takes; bound to an offset it gives a handle that reads and writes it there.
 */

/** What a layout is made of, for those who print it: the C header and the documentation. */
export type Shape =
  | { readonly kind: "scalar"; readonly c: string }
  | { readonly kind: "handle"; readonly to: string; readonly bits: 32 | 64 }
  | { readonly kind: "array"; readonly of: Layout<unknown>; readonly length: number }
  | { readonly kind: "padding" }
  | { readonly kind: "struct" | "union"; readonly name: string | undefined; readonly members: readonly Member[] };

/** One named member of a struct or union. `offset` counts from the start of that struct or union. */
export interface Member {
  readonly name: string;
  readonly offset: number;
  readonly layout: Layout<unknown>;
}

/** How something lies in memory; `bind(offset)` gives the handle for it at that offset. */
export interface Layout<Handle> {
  readonly sizeBytes: number;
  readonly alignBytes: number;
  readonly shape: Shape;
  bind(offset: number): Handle;
}

/** Reads and writes one number at `at + offset` of a view. */
export interface Scalar<T = number> {
  readonly offset: number;
  readonly sizeBytes: number;
  get(view: DataView, at: number): T;
  set(view: DataView, at: number, value: T): void;
}

/** A 64-bit number, with its halves for those who must not lose a bit and must not allocate. */
export interface Wide<T> extends Scalar<T> {
  readonly low: Scalar;
  readonly high: Scalar;
}

/** A fixed number of bytes. */
export interface Bytes {
  readonly offset: number;
  readonly sizeBytes: number;
  readonly length: number;
  /** A copy of the bytes. */
  get(view: DataView, at: number): Uint8Array;
  /** Writes `value` and zeros behind it. Throws a RangeError when it is longer than the field. */
  set(view: DataView, at: number, value: Uint8Array): void;
}

/** A fixed number of scalars. An index outside it throws a RangeError: it is ours, never a guest's. */
export interface ScalarArray<T = number> {
  readonly offset: number;
  readonly length: number;
  readonly strideBytes: number;
  get(view: DataView, at: number, index: number): T;
  set(view: DataView, at: number, index: number, value: T): void;
}

const scalar = <T, H extends Scalar<T>>(
  c: string,
  sizeBytes: number,
  alignBytes: number,
  bind: (offset: number) => H,
): Layout<H> => ({ sizeBytes, alignBytes, shape: { kind: "scalar", c }, bind });

/** An unsigned byte. */
export const u8: Layout<Scalar> = scalar("uint8_t", 1, 1, (offset) => ({
  offset,
  sizeBytes: 1,
  get: (view, at) => view.getUint8(at + offset),
  set: (view, at, value) => view.setUint8(at + offset, value),
}));

/** A signed byte. */
export const s8: Layout<Scalar> = scalar("int8_t", 1, 1, (offset) => ({
  offset,
  sizeBytes: 1,
  get: (view, at) => view.getInt8(at + offset),
  set: (view, at, value) => view.setInt8(at + offset, value),
}));

/** An unsigned number of 16 bits, little-endian. */
export const u16: Layout<Scalar> = scalar("uint16_t", 2, 2, (offset) => ({
  offset,
  sizeBytes: 2,
  get: (view, at) => view.getUint16(at + offset, true),
  set: (view, at, value) => view.setUint16(at + offset, value, true),
}));

/** A signed number of 16 bits, little-endian. */
export const s16: Layout<Scalar> = scalar("int16_t", 2, 2, (offset) => ({
  offset,
  sizeBytes: 2,
  get: (view, at) => view.getInt16(at + offset, true),
  set: (view, at, value) => view.setInt16(at + offset, value, true),
}));

/** An unsigned number of 32 bits, little-endian. */
export const u32: Layout<Scalar> = scalar("uint32_t", 4, 4, (offset) => ({
  offset,
  sizeBytes: 4,
  get: (view, at) => view.getUint32(at + offset, true),
  set: (view, at, value) => view.setUint32(at + offset, value, true),
}));

/** A signed number of 32 bits, little-endian. */
export const s32: Layout<Scalar> = scalar("int32_t", 4, 4, (offset) => ({
  offset,
  sizeBytes: 4,
  get: (view, at) => view.getInt32(at + offset, true),
  set: (view, at, value) => view.setInt32(at + offset, value, true),
}));

const halves = (offset: number): { low: Scalar; high: Scalar } => ({
  low: u32.bind(offset),
  high: u32.bind(offset + 4),
});

const bindBigInt = (offset: number): Wide<bigint> => ({
  offset,
  sizeBytes: 8,
  ...halves(offset),
  get: (view, at) => view.getBigUint64(at + offset, true),
  set: (view, at, value) => view.setBigUint64(at + offset, value, true),
});

const bindNumber = (offset: number): Wide<number> => ({
  offset,
  sizeBytes: 8,
  ...halves(offset),
  get: (view, at) => {
    const high = view.getUint32(at + offset + 4, true);
    return high > 0x1f_ffff ? Infinity : high * 0x1_0000_0000 + view.getUint32(at + offset, true);
  },
  set: (view, at, value) => {
    if (!(Number.isSafeInteger(value) && value >= 0)) throw new RangeError(`not a 53-bit unsigned number: ${value}`);
    view.setUint32(at + offset, value >>> 0, true);
    view.setUint32(at + offset + 4, Math.floor(value / 0x1_0000_0000), true);
  },
});

/** `uint64_t` as a BigInt, which every read allocates: for values that use all 64 bits. Aligned to 4, as on 32-bit x86. */
export const u64: Layout<Wide<bigint>> = scalar("uint64_t", 8, 4, bindBigInt);

/**
 * `uint64_t` as a number, without allocation. A value of 2^53 or more reads as `Infinity`, so that every upper bound
 * refuses it and none takes it for a nearby number; writing one throws. Aligned to 4, as on 32-bit x86.
 */
export const u64n: Layout<Wide<number>> = scalar("uint64_t", 8, 4, bindNumber);

/** `uint64_aligned_t`: as `u64n`, but aligned to 8 everywhere. Domctl and sysctl use it. */
export const u64_aligned: Layout<Wide<number>> = scalar("uint64_aligned_t", 8, 8, bindNumber);

/** The same number under the name that Xen's headers give it, for the generated ones. */
export const named = <H>(layout: Layout<H>, c: string): Layout<H> => ({ ...layout, shape: { kind: "scalar", c } });

/** A guest pointer of 4 bytes to things of the C type `to`. Reads as the address. */
export const handle32 = (to: string): Layout<Scalar> => ({ ...u32, shape: { kind: "handle", to, bits: 32 } });

/**
 * A guest pointer in an 8-byte, 8-aligned field: the address is the low half, and the whole is read, so that one with a
 * non-zero high half is beyond every guest's memory.
 */
export const handle64 = (to: string): Layout<Wide<number>> => ({
  ...u64_aligned,
  shape: { kind: "handle", to, bits: 64 },
});

const byteArray = (length: number, element: Layout<Scalar>): Layout<Bytes> => ({
  sizeBytes: length,
  alignBytes: 1,
  shape: { kind: "array", of: element, length },
  bind: (offset) => ({
    offset,
    sizeBytes: length,
    length,
    get: (view, at) => new Uint8Array(view.buffer, view.byteOffset + at + offset, length).slice(),
    set: (view, at, value) => {
      if (value.length > length) throw new RangeError(`${value.length} bytes do not fit into ${length}`);
      const target = new Uint8Array(view.buffer, view.byteOffset + at + offset, length);
      target.set(value);
      target.fill(0, value.length);
    },
  }),
});

/** `uint8_t[length]`. */
export const bytes = (length: number): Layout<Bytes> => byteArray(length, u8);

/** `char[length]`: a string field, filled with zeros to its end. */
export const chars = (length: number): Layout<Bytes> => byteArray(length, named(u8, "char"));

/** `length` scalars one after the other. */
export const array = <T>(element: Layout<Scalar<T>>, length: number): Layout<ScalarArray<T>> => ({
  sizeBytes: element.sizeBytes * length,
  alignBytes: element.alignBytes,
  shape: { kind: "array", of: element, length },
  bind: (offset) => {
    const first = element.bind(offset);
    const strideBytes = element.sizeBytes;
    const inside = (index: number): number => {
      if (!(index >= 0 && index < length)) throw new RangeError(`index ${index} of an array of ${length}`);
      return index * strideBytes;
    };
    return {
      offset,
      length,
      strideBytes,
      get: (view, at, index) => first.get(view, at + inside(index)),
      set: (view, at, index, value) => first.set(view, at + inside(index), value),
    };
  },
});

/** Bytes that the compiler inserts for alignment. Nothing reads or writes them. */
export const pad = (length: number): Layout<undefined> => ({
  sizeBytes: length,
  alignBytes: 1,
  shape: { kind: "padding" },
  bind: () => undefined,
});
