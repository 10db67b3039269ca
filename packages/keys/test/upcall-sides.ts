/** The steps of a helper, done by the kernel and by the library. */
import { type Answer, type KeyService, type Process, settle } from "../src/index.ts";
import type { KernelKeys } from "./kernel-keys.ts";
import { serials } from "./oracle-lists.ts";
import type { HelperStep, Perform } from "./upcall-steps.ts";

const USER = "user";
const ROOM_BYTES = 70_000;

const payloadOf = (sizeBytes: number): Buffer => Buffer.alloc(sizeBytes, "p");
const text = (bytes: Buffer, size: number): string | number => (size < 0 ? size : bytes.toString("latin1", 0, size));

/** By system calls of the process that calls it. */
export const kernelPerforms =
  (kernel: KernelKeys): Perform =>
  (step, numberOf) => {
    const fill = (op: number, id: number): string | number => {
      const room = Buffer.alloc(ROOM_BYTES);
      return text(room, kernel.keyctlBytes(op, id, room, room.length));
    };
    switch (step.does) {
      case "assume":
        return kernel.keyctl(16, numberOf(step.id));
      case "instantiate": {
        const payload = payloadOf(step.sizeBytes);
        return kernel.keyctlBytes(12, numberOf(step.id), payload, payload.length, numberOf(step.ring));
      }
      case "reject":
        return kernel.keyctl(19, numberOf(step.id), step.seconds, step.error, numberOf(step.ring));
      case "timeout":
        return kernel.keyctl(15, numberOf(step.id), step.seconds);
      case "permissions":
        return kernel.keyctl(5, numberOf(step.id), step.mask);
      case "describe":
        return fill(6, numberOf(step.id));
      case "read":
        return fill(11, numberOf(step.id));
      case "security":
        return fill(17, numberOf(step.id));
      case "id":
        return kernel.keyctl(0, numberOf(step.id), 0);
      case "find":
        return kernel.requestKey(USER, step.description, null, 0);
      case "search":
        return kernel.keyctlTexts(10, numberOf(step.ring), USER, step.description, 0);
      case "add":
        return kernel.addKey(USER, step.description, payloadOf(5), numberOf(step.ring));
      default:
        return kernel.keyctl(PLAIN[step.does], numberOf(step.id), "ring" in step ? numberOf(step.ring) : 0);
    }
  };

const PLAIN = { link: 8, unlink: 9, revoke: 3, invalidate: 21 } as const;

/** By operations of the library, for a process of its own. */
export const libraryPerforms = (service: KeyService, helper: Process): Perform => {
  const fill = async (operation: (target: Buffer) => Answer): Promise<string | number> => {
    const room = Buffer.alloc(ROOM_BYTES);
    return text(room, await settle(operation(room)));
  };
  const answer = (step: HelperStep, numberOf: Parameters<Perform>[1]): Answer | Promise<string | number> => {
    switch (step.does) {
      case "assume":
        return service.assumeAuthority(helper, numberOf(step.id));
      case "instantiate":
        return service.instantiate(helper, numberOf(step.id), payloadOf(step.sizeBytes), numberOf(step.ring));
      case "reject": {
        const { seconds, error } = step;
        return service.reject(helper, numberOf(step.id), { seconds, error, ring: numberOf(step.ring) });
      }
      case "timeout":
        return service.setTimeout(helper, numberOf(step.id), step.seconds);
      case "permissions":
        return service.setPermissions(helper, numberOf(step.id), step.mask);
      case "describe":
        return fill((target) => service.describe(helper, numberOf(step.id), target));
      case "read":
        return fill((target) => service.read(helper, numberOf(step.id), target));
      case "security":
        return fill((target) => service.getSecurity(helper, numberOf(step.id), target));
      case "id":
        return service.getKeyringId(helper, numberOf(step.id), false);
      case "find":
        return service.requestKey(helper, USER, step.description, null, 0);
      case "search":
        return service.search(helper, numberOf(step.ring), USER, step.description, 0);
      case "add":
        return service.addKey(helper, USER, step.description, payloadOf(5), numberOf(step.ring));
      case "link":
      case "unlink":
        return service[step.does](helper, numberOf(step.id), numberOf(step.ring));
      case "revoke":
      case "invalidate":
        return service[step.does](helper, numberOf(step.id));
    }
  };
  return async (step, numberOf) => {
    const answered = await answer(step, numberOf);
    return typeof answered === "object" ? await settle(answered) : answered;
  };
};

const SESSION = -3;

/** The only key in a helper's session keyring: its authority. */
export const authorityIn = (read: (target: Buffer) => number): number => {
  const room = Buffer.alloc(64);
  return serials(room, Math.max(0, read(room)))[0] ?? 0;
};

/** The same, of the kernel. */
export const kernelAuthority = (kernel: KernelKeys): number =>
  authorityIn((room) => kernel.keyctlBytes(11, SESSION, room, room.length));
