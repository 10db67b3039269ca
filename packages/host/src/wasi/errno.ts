/**
 * Errors as a WASI guest knows them. The functions of this folder work with negative Linux errnos, as everything below
 * them does; this table translates at the door.
 *
 * Source: WebAssembly/WASI, phases/snapshot/witx/typenames.witx ($errno); Linux, include/uapi/asm-generic/errno.h.
 */

/** The right for the operation is missing. Linux has no such number: this one is ours, outside its range. */
export const ENOTCAPABLE = 4096;

/** Every error of WASI: its name without the E, its number there, its number on Linux. */
export const errnos = {
  SUCCESS: [0, 0],
  TOOBIG: [1, 7],
  ACCES: [2, 13],
  ADDRINUSE: [3, 98],
  ADDRNOTAVAIL: [4, 99],
  AFNOSUPPORT: [5, 97],
  AGAIN: [6, 11],
  ALREADY: [7, 114],
  BADF: [8, 9],
  BADMSG: [9, 74],
  BUSY: [10, 16],
  CANCELED: [11, 125],
  CHILD: [12, 10],
  CONNABORTED: [13, 103],
  CONNREFUSED: [14, 111],
  CONNRESET: [15, 104],
  DEADLK: [16, 35],
  DESTADDRREQ: [17, 89],
  DOM: [18, 33],
  DQUOT: [19, 122],
  EXIST: [20, 17],
  FAULT: [21, 14],
  FBIG: [22, 27],
  HOSTUNREACH: [23, 113],
  IDRM: [24, 43],
  ILSEQ: [25, 84],
  INPROGRESS: [26, 115],
  INTR: [27, 4],
  INVAL: [28, 22],
  IO: [29, 5],
  ISCONN: [30, 106],
  ISDIR: [31, 21],
  LOOP: [32, 40],
  MFILE: [33, 24],
  MLINK: [34, 31],
  MSGSIZE: [35, 90],
  MULTIHOP: [36, 72],
  NAMETOOLONG: [37, 36],
  NETDOWN: [38, 100],
  NETRESET: [39, 102],
  NETUNREACH: [40, 101],
  NFILE: [41, 23],
  NOBUFS: [42, 105],
  NODEV: [43, 19],
  NOENT: [44, 2],
  NOEXEC: [45, 8],
  NOLCK: [46, 37],
  NOLINK: [47, 67],
  NOMEM: [48, 12],
  NOMSG: [49, 42],
  NOPROTOOPT: [50, 92],
  NOSPC: [51, 28],
  NOSYS: [52, 38],
  NOTCONN: [53, 107],
  NOTDIR: [54, 20],
  NOTEMPTY: [55, 39],
  NOTRECOVERABLE: [56, 131],
  NOTSOCK: [57, 88],
  NOTSUP: [58, 95],
  NOTTY: [59, 25],
  NXIO: [60, 6],
  OVERFLOW: [61, 75],
  OWNERDEAD: [62, 130],
  PERM: [63, 1],
  PIPE: [64, 32],
  PROTO: [65, 71],
  PROTONOSUPPORT: [66, 93],
  PROTOTYPE: [67, 91],
  RANGE: [68, 34],
  ROFS: [69, 30],
  SPIPE: [70, 29],
  SRCH: [71, 3],
  STALE: [72, 116],
  TIMEDOUT: [73, 110],
  TXTBSY: [74, 26],
  XDEV: [75, 18],
  NOTCAPABLE: [76, ENOTCAPABLE],
} as const;

/** The name of a WASI error, without the E. */
export type WasiErrnoName = keyof typeof errnos;

const wasiOfLinux = new Uint8Array(ENOTCAPABLE + 1).fill(errnos.IO[0]);
for (const [wasi, linux] of Object.values(errnos)) wasiOfLinux[linux] = wasi;

/** The WASI errno for a result: 0 for a success, IO for an error that WASI has no word for. */
export const wasiErrno = (result: number): number => (result >= 0 ? 0 : (wasiOfLinux[-result] ?? errnos.IO[0]));

/** A refusal, ready to be returned: `refuse("BADF")` is -9. */
export const refuse = (name: WasiErrnoName): number => -errnos[name][1];
