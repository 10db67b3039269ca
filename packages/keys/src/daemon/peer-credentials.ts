import { XenolithError } from "@xenolith/abi/error";
import type { PeerIdentity } from "./caller.ts";

/**
 * The kernel's word on who is at the other end of a socket. Node cannot ask for it; the package that calls C can, and it
 * is the only thing that the daemon needs of it. `CAPABILITY_MISSING` where it is not installed.
 */
export const loadPeerCredentials = async (): Promise<(descriptor: number) => PeerIdentity | number> => {
  let sys;
  try {
    // Optional: the library is usable alone, the daemon is not.
    // oxlint-disable-next-line eslint/no-restricted-imports
    sys = await import("@xenolith/sys");
  } catch (cause) {
    throw new XenolithError("CAPABILITY_MISSING", "xkeyd needs @xenolith/sys to know who its callers are", { cause });
  }
  const { peerCredentials } = sys;
  return (descriptor) => {
    const found = peerCredentials(descriptor);
    return typeof found === "number" ? found : { pid: found.processId, uid: found.userId, gid: found.groupId };
  };
};
