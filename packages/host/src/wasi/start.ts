/**
 * The descriptors that a domain starts with: its three streams, then the directories it was given.
 */
import { closeDescriptor } from "@xenolith/sys";
import type { WasiPreopen, WasiStdio } from "./context.ts";
import { DESCRIPTOR_COUNT_DEFAULT, DescriptorKind, DescriptorTable, descriptorTableBytes } from "./descriptor-table.ts";
import { Filetype } from "./layouts.ts";
import { ALL_RIGHTS, Right, rightsFor } from "./rights.ts";

/** The table's memory for a new domain, to be shared with its vCPUs. */
export const createDescriptorBuffer = (capacity: number = DESCRIPTOR_COUNT_DEFAULT): SharedArrayBuffer =>
  new SharedArrayBuffer(descriptorTableBytes(capacity));

/** The table over such a memory, for one thread. */
export const attachDescriptors = (buffer: SharedArrayBuffer): DescriptorTable =>
  new DescriptorTable(buffer, closeDescriptor);

const streamRights = (stream: number): number =>
  (stream === 0 ? Right.FD_READ : Right.FD_WRITE) |
  Right.FD_FDSTAT_SET_FLAGS |
  Right.FD_FILESTAT_GET |
  Right.POLL_FD_READWRITE;

/**
 * Opens 0, 1 and 2 and then one descriptor for each preopen. The table owns the preopens' host descriptors from now on.
 * Returns the number of preopens that found room.
 */
export const openInitialDescriptors = (
  table: DescriptorTable,
  stdio: Pick<WasiStdio, "filetype">,
  preopens: readonly WasiPreopen[],
): number => {
  for (let stream = 0; stream < 3; stream += 1) {
    table.publish(table.reserve(), {
      kind: DescriptorKind.STDIO,
      hostFd: stream,
      filetype: stdio.filetype(stream),
      base: streamRights(stream),
      inheriting: 0,
      fdflags: 0,
      origin: 0,
      readOnly: false,
    });
  }
  for (const [index, preopen] of preopens.entries()) {
    const fd = table.reserve();
    if (fd < 0) return index;
    table.publish(fd, {
      kind: DescriptorKind.DIRECTORY,
      hostFd: preopen.hostFd,
      filetype: Filetype.DIRECTORY,
      base: rightsFor(Filetype.DIRECTORY),
      inheriting: ALL_RIGHTS,
      fdflags: 0,
      origin: index + 1,
      readOnly: preopen.readOnly,
    });
  }
  return preopens.length;
};
