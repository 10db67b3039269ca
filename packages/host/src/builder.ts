/**
 * Turns an image into the memory of a new domain: RAM for what the module declares, its data, and for Xen-style guests
 * the pages that tell it about itself.
 *
 *     0                        declared minimum            0xffffa000     0xffffb000     0xffffc000    0xffffd000   0xffffe000      4 GiB
 *     ├────────────────────────┼──────────────────────────┼──────────────┼──────────────┼─────────────┼────────────┼───────────────┤
 *     │ RAM, data segments     │ holes; memory.grow here  │ xenstore ring│ console ring │ shared_info │ start_info │ holes         │
 *                                                          (ring pages: rings.ts)        (Xen-style guests only)
 */
import { EFAULT, errnoName, XENMAPSPACE_shared_info, XenolithError, start_info } from "@xenolith/abi";
import { addToPhysmap, GuestMemory, MAX_PAGES_MAX, setMaxPages } from "@xenolith/core";
import { segmentBytes } from "@xenolith/loader";
import { claimFrames } from "./memory-claim.ts";
import { FRAMES_PER_PAGE, populateHoles } from "./guest-heap.ts";
import type { HostContext } from "./host-context.ts";
import type { BootImage } from "./image.ts";
import { FRAME_BYTES } from "./mmu.ts";
import { connectRings, CONSOLE_GFN, hasRings, RING_FRAMES, type RingFacts, STORE_GFN } from "./rings.ts";

const START_INFO_MAGIC = "xen-3.0-wasm_32";
const PAGES_MAX = 65_536;
/** As many for a guest whose last page of 64 KiB holds rings, start_info and shared_info. */
const PAGES_MAX_XEN = PAGES_MAX - 1;
/** Where start_info stands; shared_info is one frame below. The two frames above stay holes. */
const START_INFO_GFN = 0xf_fffd;
const SHARED_INFO_GFN = START_INFO_GFN - 1;

/** Most bytes of a Xen-style guest's command line. */
export const COMMAND_LINE_BYTES_MAX = start_info.cmd_line.sizeBytes - 1;

/** What a domain is built from. */
export interface BuildPlan {
  readonly slot: number;
  readonly image: BootImage;
  /** Most frames that the domain may own. */
  readonly pagesMax: number;
  /** Frames set aside for it before anything is populated. */
  readonly claimPages: number;
  /** For Xen-style guests. */
  readonly commandLine: string;
}

/** What a domain was built with. */
export interface Built {
  /** Address of its start_info; 0: not a Xen-style guest. */
  readonly startInfo: number;
  readonly rings: RingFacts | undefined;
}

/**
 * Fills the memory of a domain that has none.
 *
 * @throws XenolithError `MEMORY_LIMIT`, `MEMORY_EXHAUSTED`, `VMA_EXHAUSTED`, `MODULE_INVALID`.
 */
export const buildDomain = (context: HostContext, plan: BuildPlan): Built => {
  const { hypervisor, hostTable } = context;
  const { slot } = plan;
  const { manifest } = plan.image.image;
  const minimumPages = manifest.memory?.minimumPages ?? 0;
  const isRinged = hasRings(manifest);
  setMaxPages(hypervisor, slot, Math.min(plan.pagesMax, MAX_PAGES_MAX));
  if (plan.claimPages > 0) claimFrames(hypervisor, slot, plan.claimPages);
  populate(context, plan, 0, minimumPages * FRAMES_PER_PAGE);
  hostTable.memoryPages[slot] = minimumPages;
  const pagesMax = manifest.memory === null ? 0 : (manifest.memory.maximumPages ?? PAGES_MAX);
  hostTable.memoryPagesMax[slot] = isRinged ? Math.min(pagesMax, PAGES_MAX_XEN) : pagesMax;
  writeSegments(context, plan);
  if (isRinged) populate(context, plan, STORE_GFN, RING_FRAMES);
  const rings = isRinged ? connectRings(hypervisor, slot) : undefined;
  return { startInfo: manifest.kind === "xen" ? writeStartInfo(context, plan, rings) : 0, rings };
};

const populate = (context: HostContext, plan: BuildPlan, gfn: number, count: number): void => {
  if (count === 0) return;
  const result = populateHoles(context.hypervisor, plan.slot, gfn, count);
  if (result === 0) return;
  const needed = `${(context.hypervisor.domains.totPages[plan.slot]! + count) * 4} KiB`;
  switch (errnoName(result)) {
    case "E2BIG":
    case "EPERM":
      throw new XenolithError(
        "MEMORY_LIMIT",
        `the image needs ${needed} of memory, the domain may have ${plan.pagesMax * 4} KiB`,
      );
    case "ENOMEM":
      throw new XenolithError(
        "MEMORY_EXHAUSTED",
        `the image needs ${needed} of memory, the machine has not enough free frames`,
      );
    default:
      throw new XenolithError("VMA_EXHAUSTED", `cannot populate ${needed} of memory: ${errnoName(result) ?? result}`);
  }
};

const writeSegments = (context: HostContext, plan: BuildPlan): void => {
  const { image } = plan.image;
  const memory = new GuestMemory(context.hypervisor, plan.slot);
  for (const [index, segment] of image.manifest.segments.entries()) {
    if (segment.address === null || segment.length === 0) continue;
    if (memory.copyToGuest(segment.address >>> 0, segmentBytes(image, segment)) === -EFAULT) {
      throw new XenolithError(
        "MODULE_INVALID",
        `data segment ${index} (${segment.length} bytes at ${segment.address >>> 0}) does not fit into the declared memory`,
      );
    }
  }
};

/** Puts start_info and shared_info at the top of the address space, where no heap ever grows to. */
const writeStartInfo = (context: HostContext, plan: BuildPlan, rings: RingFacts | undefined): number => {
  const { hypervisor } = context;
  const { slot } = plan;
  populate(context, plan, START_INFO_GFN, 1);
  const hooked = addToPhysmap(hypervisor, slot, XENMAPSPACE_shared_info, 0, SHARED_INFO_GFN);
  if (hooked !== 0) throw new XenolithError("VMA_EXHAUSTED", `cannot map shared_info: ${errnoName(hooked) ?? hooked}`);
  const bytes = new Uint8Array(start_info.sizeBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(START_INFO_MAGIC), start_info.magic.offset);
  start_info.nr_pages.set(view, 0, hypervisor.domains.totPages[slot]!);
  start_info.shared_info.set(view, 0, SHARED_INFO_GFN * FRAME_BYTES);
  if (rings !== undefined) {
    start_info.store_mfn.set(view, 0, STORE_GFN);
    start_info.store_evtchn.set(view, 0, rings.storePort);
    start_info.console.domU.mfn.set(view, 0, CONSOLE_GFN);
    start_info.console.domU.evtchn.set(view, 0, rings.consolePort);
  }
  bytes.set(new TextEncoder().encode(plan.commandLine), start_info.cmd_line.offset);
  new GuestMemory(hypervisor, slot).copyToGuest(START_INFO_GFN * FRAME_BYTES, bytes);
  return START_INFO_GFN * FRAME_BYTES;
};
