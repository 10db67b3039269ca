// Linux's error numbers, as far as key operations answer with them. Source: asm-generic/errno-base.h, asm-generic/errno.h.

export const EPERM = 1;
export const ENOENT = 2;
export const EINTR = 4;
export const EIO = 5;
export const EAGAIN = 11;
export const ENOMEM = 12;
export const EACCES = 13;
export const EFAULT = 14;
export const EBUSY = 16;
export const EEXIST = 17;
export const ENODEV = 19;
export const ENOTDIR = 20;
export const EINVAL = 22;
export const ENFILE = 23;
export const EDEADLK = 35;
export const ELOOP = 40;
export const EBADSLT = 57;
export const ENOPKG = 65;
export const EBADMSG = 74;
export const EOPNOTSUPP = 95;
export const EDQUOT = 122;
export const ENOKEY = 126;
export const EKEYEXPIRED = 127;
export const EKEYREVOKED = 128;
export const EKEYREJECTED = 129;

/** Every error number of the key operations by its name; the values are positive. */
export const keyErrno = {
  EPERM,
  ENOENT,
  EINTR,
  EIO,
  EAGAIN,
  ENOMEM,
  EACCES,
  EFAULT,
  EBUSY,
  EEXIST,
  ENODEV,
  ENOTDIR,
  EINVAL,
  ENFILE,
  EDEADLK,
  ELOOP,
  EBADSLT,
  ENOPKG,
  EBADMSG,
  EOPNOTSUPP,
  EDQUOT,
  ENOKEY,
  EKEYEXPIRED,
  EKEYREVOKED,
  EKEYREJECTED,
} as const;

/** The name of an error number of the key operations. */
export type KeyErrorName = keyof typeof keyErrno;

/** What the C library of a Linux system says of each. */
const texts: Readonly<Record<KeyErrorName, string>> = {
  EPERM: "Operation not permitted",
  ENOENT: "No such file or directory",
  EINTR: "Interrupted system call",
  EIO: "Input/output error",
  EAGAIN: "Resource temporarily unavailable",
  ENOMEM: "Cannot allocate memory",
  EACCES: "Permission denied",
  EFAULT: "Bad address",
  EBUSY: "Device or resource busy",
  EEXIST: "File exists",
  ENODEV: "No such device",
  ENOTDIR: "Not a directory",
  EINVAL: "Invalid argument",
  ENFILE: "Too many open files in system",
  EDEADLK: "Resource deadlock avoided",
  ELOOP: "Too many levels of symbolic links",
  EBADSLT: "Invalid slot",
  ENOPKG: "Package not installed",
  EBADMSG: "Bad message",
  EOPNOTSUPP: "Operation not supported",
  EDQUOT: "Disk quota exceeded",
  ENOKEY: "Required key not available",
  EKEYEXPIRED: "Key has expired",
  EKEYREVOKED: "Key has been revoked",
  EKEYREJECTED: "Key was rejected by service",
};

const names = new Map<number, KeyErrorName>();
for (const name of Object.keys(keyErrno)) if (isName(name)) names.set(keyErrno[name], name);

function isName(name: string): name is KeyErrorName {
  return name in keyErrno;
}

/** The name of an error number of either sign; `undefined` for one that no key operation has of itself (a helper may reject with any). */
export const keyErrorName = (value: number): KeyErrorName | undefined => names.get(Math.abs(value));

/** The C library's text for an error number of either sign, "Unknown error N" where this table has none. */
export const keyErrorText = (value: number): string => {
  const name = keyErrorName(value);
  return name === undefined ? `Unknown error ${Math.abs(value)}` : texts[name];
};
