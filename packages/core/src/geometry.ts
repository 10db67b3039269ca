/**
 * How large one hypervisor is. Fixed at creation and the same in every thread; small in a simulation.
 */
export interface Geometry {
  /** Machine memory: frames per bank (2^20 = 4 GiB in production; a power of two). */
  readonly framesPerBank: number;
  /** Number of banks. mfn = bank * framesPerBank + index. */
  readonly bankCount: number;
  /** Machine frames that may be allocated (<= framesPerBank * bankCount). */
  readonly machineFrames: number;
  /** Domain slots, dom0 included. */
  readonly domainCountMax: number;
  /** Guest frames of one address space (2^20 in production). */
  readonly gfnCount: number;
  /** vCPUs of one domain (32: as many as shared_info holds). */
  readonly vcpusPerDomain: number;
  /** Event-channel ports of one domain (1024: 2-level ABI in the 32-bit layout). */
  readonly portsPerDomain: number;
  /** Frames that the grant table of one domain may grow to (512 references each). */
  readonly grantFramesMax: number;
  /** Pages that the maptrack of one domain may grow to (256 handles each). */
  readonly maptrackFramesMax: number;
  /** Pages of maptrack that all domains have together. */
  readonly maptrackPages: number;
  /** Extents of frames (grants of many frames by the control domain) at a time. */
  readonly extentCount: number;
  /** VMAs that all guest address spaces together may use, reserve excluded. */
  readonly vmaLimit: number;
  /** VMAs kept back for revocation and for the JavaScript engine. */
  readonly vmaReserve: number;
}

/** Production geometry for `machineFrames` frames of 4 KiB. */
export const productionGeometry = (machineFrames: number, vma: { limit: number; reserve: number }): Geometry => ({
  framesPerBank: 1 << 20,
  bankCount: Math.max(1, Math.ceil(machineFrames / (1 << 20))),
  machineFrames,
  domainCountMax: 1024,
  gfnCount: 1 << 20,
  vcpusPerDomain: 32,
  portsPerDomain: 1024,
  grantFramesMax: 64,
  maptrackFramesMax: 1024,
  maptrackPages: 16_384,
  extentCount: 4096,
  vmaLimit: vma.limit,
  vmaReserve: vma.reserve,
});
