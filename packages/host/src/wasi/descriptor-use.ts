/**
 * Using a descriptor for the length of one call: it is found, its rights are checked, and nobody closes the host's
 * file underneath.
 */
import type { Session } from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { ENOTCAPABLE, refuse } from "./errno.ts";
import { Right } from "./rights.ts";

/**
 * The row of `fd`, to be released by the caller. `EBADF` when it is not open, `ENOTCAPABLE` when it lacks one of
 * `rights`.
 */
export const useDescriptor = ({ descriptors }: Session, fd: number, rights: number): number => {
  const row = descriptors.acquire(fd);
  if (row < 0 || (descriptors.base[row]! & rights) === rights) return row;
  descriptors.release(row);
  return -ENOTCAPABLE;
};

/** As `useDescriptor`, for a directory beneath which a path is resolved. `ENOTDIR` when it is none. */
export const useDirectory = (session: Session, fd: number, rights: number): number => {
  const row = session.descriptors.acquire(fd);
  if (row < 0) return row;
  const refused = directoryRefusal(session, row, rights);
  if (refused < 0) session.descriptors.release(row);
  return refused < 0 ? refused : row;
};

/** As `useDirectory`, for a change to what lies beneath. `EROFS` when the directory was given read-only. */
export const useWritableDirectory = (session: Session, fd: number, rights: number): number => {
  const row = useDirectory(session, fd, rights);
  if (row < 0 || session.descriptors.readOnly[row] === 0) return row;
  session.descriptors.release(row);
  return refuse("ROFS");
};

/**
 * As `useDescriptor`, for what happens at an offset. `ESPIPE` when it is a stream, which has none. The right to seek
 * implies the right to tell.
 */
export const useSeekable = (session: Session, fd: number, rights: number): number => {
  const row = session.descriptors.acquire(fd);
  if (row < 0) return row;
  const refused = seekRefusal(session, row, rights);
  if (refused < 0) session.descriptors.release(row);
  return refused < 0 ? refused : row;
};

const seekRefusal = ({ descriptors }: Session, row: number, rights: number): number => {
  const kind = descriptors.kind[row];
  if (kind === DescriptorKind.STDIO || kind === DescriptorKind.STREAM) return refuse("SPIPE");
  const base = descriptors.base[row]!;
  const effective = (base & Right.FD_SEEK) === 0 ? base : base | Right.FD_TELL;
  return (effective & rights) === rights ? 0 : -ENOTCAPABLE;
};

const directoryRefusal = ({ descriptors }: Session, row: number, rights: number): number => {
  if (descriptors.kind[row] !== DescriptorKind.DIRECTORY) return refuse("NOTDIR");
  return (descriptors.base[row]! & rights) === rights ? 0 : -ENOTCAPABLE;
};
