import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, resultOf } from "./libc.ts";

/** Who is at the other end of a Unix socket, as the kernel recorded it when it connected. */
export interface PeerCredentials {
  readonly processId: number;
  readonly userId: number;
  readonly groupId: number;
}

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** struct ucred: three 4-byte words; the option's length lies behind it. */
const UCRED_BYTES = 12;

const getsockopt = bind("int getsockopt(int, int, int, uintptr_t, uintptr_t)");

/**
 * The credentials of a connected Unix socket's peer, or a negative errno: `ENOTSOCK`, `EBADF`. For a socket that is
 * not of the Unix family the kernel answers process 0 and ids of all ones.
 *
 * Source: unix(7).
 */
export const peerCredentials = (fd: number): PeerCredentials | number => {
  const { address, view } = buffer();
  view.setUint32(UCRED_BYTES, UCRED_BYTES, true);
  // SAFETY: the kernel writes at most the 12 bytes that the length word says, and then the length word.
  const result = resultOf(getsockopt()(fd, SOL_SOCKET, SO_PEERCRED, address, address + UCRED_BYTES));
  if (result < 0) return result;
  return { processId: view.getUint32(0, true), userId: view.getUint32(4, true), groupId: view.getUint32(8, true) };
};

const buffer = lazily(() => new NativeBuffer(UCRED_BYTES + 4));
