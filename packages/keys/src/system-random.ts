import { randomBytes } from "node:crypto";

/** Numbers from the operating system's generator, a few hundred at a time. */
export const systemRandom = (): (() => number) => {
  let pool = new Uint32Array(0);
  let used = 0;
  return () => {
    if (used === pool.length) {
      const bytes = randomBytes(1024);
      pool = new Uint32Array(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length));
      used = 0;
    }
    used += 1;
    return pool[used - 1]!;
  };
};
