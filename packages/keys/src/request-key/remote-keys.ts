import type { KeyConnection } from "../client/connection.ts";
import type { HelperKeys } from "./act.ts";

const FIRST_BYTES = 4096;

/** A helper's operations on keys over its connection to the daemon. */
export const remoteKeys = (connection: KeyConnection): HelperKeys => {
  const fill = async (name: "read" | "describe", key: number): Promise<Uint8Array | number> => {
    for (let room = FIRST_BYTES; ;) {
      const { result, bytes } = await connection.call(name, [key, room]);
      if (result < 0) return result;
      if (result <= room) return bytes;
      room = Math.ceil(result / 4) * 4;
    }
  };
  return {
    assumeAuthority: (key) => connection.result("assumeAuthority", [key]),
    describe: async (key) => {
      const bytes = await fill("describe", key);
      return typeof bytes === "number" ? bytes : Buffer.from(bytes).toString("latin1", 0, bytes.length - 1);
    },
    read: (key) => fill("read", key),
    find: (type, description) =>
      connection.result("requestKey", [Buffer.from(type, "latin1"), Buffer.from(description, "latin1"), null, 0]),
    instantiate: (key, payload) => connection.result("instantiate", [key, payload, 0]),
  };
};
