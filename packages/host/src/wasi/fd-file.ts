/**
 * What stands behind a descriptor: attributes, size, storage, and getting it onto the device.
 */
import { adviseFile, allocate, FileAdvice, setTimes, statusOf, synchronize, truncate } from "@xenolith/sys";
import type { Session } from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { useDescriptor, useSeekable } from "./descriptor-use.ts";
import { refuse } from "./errno.ts";
import { storeFilestat, storeStreamFilestat, timeChanges } from "./file-attributes.ts";
import { sizeOf } from "./guest-numbers.ts";
import { Right } from "./rights.ts";

export const fdFilestatGet = (session: Session, fd: number, result: number): number => {
  const { descriptors } = session;
  const row = useDescriptor(session, fd, Right.FD_FILESTAT_GET);
  if (row < 0) return row;
  const isStdio = descriptors.kind[row] === DescriptorKind.STDIO;
  const status = isStdio ? 0 : statusOf(descriptors.hostFd[row]!);
  const filetype = descriptors.filetype[row]!;
  descriptors.release(row);
  if (typeof status === "object") return storeFilestat(session, status, result);
  return status < 0 ? status : storeStreamFilestat(session, filetype, result);
};

export const fdFilestatSetSize = (session: Session, fd: number, wideSize: bigint): number =>
  onFile(session, fd, Right.FD_FILESTAT_SET_SIZE, (hostFd) => {
    const sizeBytes = sizeOf(wideSize);
    return sizeBytes < 0 ? refuse("INVAL") : truncate(hostFd, sizeBytes);
  });

export const fdFilestatSetTimes = (
  session: Session,
  fd: number,
  accessed: bigint,
  modified: bigint,
  flags: number,
): number => {
  const changes = timeChanges(accessed, modified, flags);
  if (changes === undefined) return refuse("INVAL");
  const { descriptors } = session;
  const row = useDescriptor(session, fd, Right.FD_FILESTAT_SET_TIMES);
  if (row < 0) return row;
  const result = descriptors.readOnly[row] === 1 ? refuse("ROFS") : setTimes(descriptors.hostFd[row]!, changes);
  descriptors.release(row);
  return result;
};

/** preview1's advice by its number. */
const adviceOf = [
  FileAdvice.NORMAL,
  FileAdvice.SEQUENTIAL,
  FileAdvice.RANDOM,
  FileAdvice.WILLNEED,
  FileAdvice.DONTNEED,
  FileAdvice.NOREUSE,
] as const;

export const fdAdvise = (
  session: Session,
  fd: number,
  wideOffset: bigint,
  wideLength: bigint,
  advice: number,
): number => {
  const offsetBytes = sizeOf(wideOffset);
  const lengthBytes = sizeOf(wideLength);
  const announced = adviceOf[advice];
  if (offsetBytes < 0 || lengthBytes < 0 || announced === undefined) return refuse("INVAL");
  return onFile(session, fd, Right.FD_ADVISE, (hostFd) => adviseFile(hostFd, { offsetBytes, lengthBytes }, announced));
};

export const fdAllocate = (session: Session, fd: number, wideOffset: bigint, wideLength: bigint): number => {
  const offsetBytes = sizeOf(wideOffset);
  const lengthBytes = sizeOf(wideLength);
  if (offsetBytes < 0 || lengthBytes <= 0) return refuse("INVAL");
  return onFile(session, fd, Right.FD_ALLOCATE, (hostFd) => allocate(hostFd, { offsetBytes, lengthBytes }));
};

export const fdDatasync = (session: Session, fd: number): number =>
  onFile(session, fd, Right.FD_DATASYNC, (hostFd) => synchronize(hostFd, true));

export const fdSync = (session: Session, fd: number): number =>
  onFile(session, fd, Right.FD_SYNC, (hostFd) => synchronize(hostFd, false));

/** Operates on the host's descriptor of a file or directory; streams are refused with `ESPIPE`. */
const onFile = (session: Session, fd: number, rights: number, operate: (hostFd: number) => number): number => {
  const row = useSeekable(session, fd, rights);
  if (row < 0) return row;
  const result = operate(session.descriptors.hostFd[row]!);
  session.descriptors.release(row);
  return result;
};
