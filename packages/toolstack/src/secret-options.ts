/** Secret memory of a host, as the command line describes it. */
import { XenolithError } from "@xenolith/abi/error";
import type { HostOptions } from "@xenolith/host";
import { parseSize } from "./quantity.ts";

/** Options of `xl daemon` and `xl run`. */
export interface SecretFlags {
  readonly secrets?: string;
  readonly secretMemory?: string;
}

/** What a pool of secrets may be configured to at most. */
const POOL_BYTES_MAX = 2 ** 30;

/** What is said when secrets are in memory that is only locked. */
export const DEGRADED_TEXT =
  "secret memory is DEGRADED: locked in RAM and in no core file, but the kernel, and who may debug this process, can read it";

/** The secret memory of a host; `onDegraded` is called when it is less than asked for. Fails with INVALID_ARGUMENT, INVALID_SIZE. */
export const secretPlan = (flags: SecretFlags, onDegraded?: () => void): Pick<HostOptions, "secrets"> => {
  const { secrets: policy, secretMemory } = flags;
  if (policy !== undefined && policy !== "strict" && policy !== "degraded") {
    throw new XenolithError("INVALID_ARGUMENT", `--secrets is "${policy}", neither strict nor degraded`);
  }
  return {
    secrets: {
      ...(policy === undefined ? {} : { policy }),
      ...(secretMemory === undefined ? {} : { bytesMax: parseSize(secretMemory, POOL_BYTES_MAX) }),
      ...(onDegraded === undefined ? {} : { onDegraded }),
    },
  };
};
