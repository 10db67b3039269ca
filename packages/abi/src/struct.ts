import type { Layout, Member, Shape } from "./scalar.ts";

/** The members of a struct or union in order; `pad(n)` members are the bytes that alignment leaves free. */
type Fields = Readonly<Record<string, Layout<unknown>>>;

/** One handle per member, and the place and size of the whole. */
export type Handles<F extends Fields> = {
  readonly [K in keyof F as F[K] extends Layout<undefined> ? never : K]: F[K] extends Layout<infer H> ? H : never;
} & {
  /** Where the whole begins, counted from the outermost struct. (Not `offset`: some structs have a member of that name.) */
  readonly offsetBytes: number;
  readonly sizeBytes: number;
};

/** A declared layout that is also its own handle at offset 0: `sched_poll.nr_ports.get(view, at)`. */
export type Struct<F extends Fields> = Handles<F> & Layout<Handles<F>>;

/** A fixed number of structs: `offsetOf(index)` is added to `at` of the element's own handles. */
export interface StructArray<H> {
  readonly offset: number;
  readonly length: number;
  readonly strideBytes: number;
  readonly element: H;
  /** Where the element begins, counted from the outermost struct. An index outside the array throws a RangeError. */
  offsetOf(index: number): number;
}

const reserved: ReadonlySet<string> = new Set(["offsetBytes", "sizeBytes", "alignBytes", "shape", "bind"]);

/** Not a function of condition and message: each vCPU thread declares all structs, and texts nobody reads take time. */
const fail = (message: string): never => {
  throw new RangeError(message);
};

const compound = <F extends Fields>(
  shape: Shape & { readonly members: readonly Member[] },
  sizeBytes: number,
  alignBytes: number,
): Struct<F> => {
  const handlesAt = (offset: number): Record<string, unknown> => {
    const handles: Record<string, unknown> = {};
    for (const { name, offset: from, layout } of shape.members) {
      if (layout.shape.kind !== "padding") handles[name] = layout.bind(offset + from);
    }
    handles["offsetBytes"] = offset;
    handles["sizeBytes"] = sizeBytes;
    return handles;
  };
  const bind = (offset: number): Handles<F> => Object.freeze(handlesAt(offset)) as Handles<F>;
  return Object.freeze(Object.assign(handlesAt(0), { alignBytes, shape, bind })) as unknown as Struct<F>;
};

const greatest = (values: readonly number[]): number => values.reduce((a, b) => Math.max(a, b), 1);

const layOut = (where: string, fields: Fields): { members: Member[]; sizeBytes: number; alignBytes: number } => {
  const members: Member[] = [];
  let offset = 0;
  for (const [name, layout] of Object.entries(fields)) {
    if (reserved.has(name)) fail(`${where}.${name}: a member cannot have this name`);
    if (offset % layout.alignBytes !== 0)
      fail(`${where}.${name}: offset ${offset} is not aligned to ${layout.alignBytes}`);
    members.push({ name, offset, layout });
    offset += layout.sizeBytes;
  }
  const alignBytes = greatest(members.map((member) => member.layout.alignBytes));
  if (offset % alignBytes !== 0) fail(`${where}: size ${offset} is not a multiple of its alignment ${alignBytes}`);
  return { members, sizeBytes: offset, alignBytes };
};

/**
 * Declares a struct of Xen's public interface. When the module loads this throws a RangeError unless every member is
 * naturally aligned for 32-bit x86 (64-bit numbers to 4, `uint64_aligned_t` to 8), no padding is hidden and the size is
 * the declared one.
 */
export const struct = <const F extends Fields>(
  name: string,
  sizeBytes: number,
  fields: F,
  options: { readonly alignBytes?: number } = {},
): Struct<F> => {
  const laidOut = layOut(name, fields);
  if (laidOut.sizeBytes !== sizeBytes) fail(`${name}: members take ${laidOut.sizeBytes} bytes, declared ${sizeBytes}`);
  const wanted = options.alignBytes ?? laidOut.alignBytes;
  if (wanted !== laidOut.alignBytes) fail(`${name}: aligned to ${laidOut.alignBytes}, declared ${wanted}`);
  return compound<F>({ kind: "struct", name, members: laidOut.members }, sizeBytes, laidOut.alignBytes);
};

/** A struct without a name, declared where it is used. */
export const group = <const F extends Fields>(fields: F): Struct<F> => {
  const { members, sizeBytes, alignBytes } = layOut("group", fields);
  return compound<F>({ kind: "struct", name: undefined, members }, sizeBytes, alignBytes);
};

const overlay = <F extends Fields>(name: string | undefined, fields: F): Struct<F> => {
  const members = Object.entries(fields).map(([member, layout]) => ({ name: member, offset: 0, layout }));
  for (const { name: member } of members) if (reserved.has(member)) fail(`${member}: a member cannot have this name`);
  const alignBytes = greatest(members.map((member) => member.layout.alignBytes));
  const longest = greatest(members.map((member) => member.layout.sizeBytes));
  const sizeBytes = Math.ceil(longest / alignBytes) * alignBytes;
  return compound<F>({ kind: "union", name, members }, sizeBytes, alignBytes);
};

/** Alternatives that begin at the same place, as long as the longest of them. */
export const union = <const F extends Fields>(fields: F): Struct<F> => overlay(undefined, fields);

/** A union that has a name and a declared size of its own. Throws a RangeError when the size is another. */
export const namedUnion = <const F extends Fields>(name: string, sizeBytes: number, fields: F): Struct<F> => {
  const declared = overlay(name, fields);
  if (declared.sizeBytes !== sizeBytes)
    fail(`${name}: members take ${declared.sizeBytes} bytes, declared ${sizeBytes}`);
  return declared;
};

/** `length` structs one after the other. */
export const structArray = <H>(element: Layout<H>, length: number): Layout<StructArray<H>> => ({
  sizeBytes: element.sizeBytes * length,
  alignBytes: element.alignBytes,
  shape: { kind: "array", of: element, length },
  bind: (offset) => ({
    offset,
    length,
    strideBytes: element.sizeBytes,
    element: element.bind(0),
    offsetOf: (index) => {
      if (!(index >= 0 && index < length)) fail(`index ${index} of an array of ${length}`);
      return offset + index * element.sizeBytes;
    },
  }),
});
