import { settle, type Answer } from "../pending.ts";
import type { Process } from "../process.ts";
import type { HelperKeys } from "../request-key/act.ts";
import type { KeyService } from "../service.ts";

/** A helper's operations on keys without a connection: the service is in this process. */
export const localKeys = (service: KeyService, process: Process): HelperKeys => {
  const fill = async (operation: (target?: Uint8Array) => Answer): Promise<Uint8Array | number> => {
    for (let room = 0; ;) {
      const target = new Uint8Array(room);
      const size = await settle(operation(target));
      if (size < 0) return size;
      if (size <= room) return target.subarray(0, size);
      room = Math.ceil(size / 4) * 4;
    }
  };
  return {
    assumeAuthority: (key) => settle(service.assumeAuthority(process, key)),
    describe: async (key) => {
      const bytes = await fill((target) => service.describe(process, key, target));
      return typeof bytes === "number" ? bytes : Buffer.from(bytes).toString("latin1", 0, bytes.length - 1);
    },
    read: (key) => fill((target) => service.read(process, key, target)),
    find: (type, description) =>
      settle(service.requestKey(process, Buffer.from(type, "latin1"), Buffer.from(description, "latin1"), null, 0)),
    instantiate: (key, payload) => settle(service.instantiate(process, key, payload, 0)),
  };
};
