/**
 * Turns an image into the memory of a new domain: RAM for what the module declares, its data, and for Xen-style guests
 * the pages that tell it about itself.
 *
 *     0                        declared minimum            0xffffc000    0xffffd000   0xffffe000      4 GiB
 *     ├────────────────────────┼──────────────────────────┼─────────────┼────────────┼───────────────┤
 *     │ RAM, data segments     │ holes; memory.grow here  │ shared_info │ start_info │ holes         │
 *                                                          (Xen-style guests only)
 */
import { EFAULT, errnoName, XENMAPSPACE_shared_info, XenolithError, start_info } from "@xenolith/abi";
import { addToPhysmap, GuestMemory, MAX_PAGES_MAX, setMaxPages } from "@xenolith/core";
import { segmentBytes } from "@xenolith/loader";
import { FRAMES_PER_PAGE, populateHoles } from "./guest-heap.ts";
import type { HostContext } from "./host-context.ts";
import type { BootImage } from "./image.ts";
import { FRAME_BYTES } from "./mmu.ts";

const START_INFO_MAGIC = "xen-3.0-wasm_32";
const PAGES_MAX = 65_536;
/** As many for a Xen-style guest, whose last page of 64 KiB holds start_info and shared_info. */
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
  /** For Xen-style guests. */
  readonly commandLine: string;
}

/**
 * Fills the memory of a domain that has none, and returns the address of its start_info (0: not a Xen-style guest).
 *
 * @throws XenolithError `MEMORY_LIMIT`, `MEMORY_EXHAUSTED`, `VMA_EXHAUSTED`, `MODULE_INVALID`.
 */
export const buildDomain = (context: HostContext, plan: BuildPlan): number => {
  const { hypervisor, hostTable } = context;
  const { slot } = plan;
  const { manifest } = plan.image.image;
  const minimumPages = manifest.memory?.minimumPages ?? 0;
  const isXen = manifest.kind === "xen";
  setMaxPages(hypervisor, slot, Math.min(plan.pagesMax, MAX_PAGES_MAX));
  populate(context, plan, 0, minimumPages * FRAMES_PER_PAGE);
  hostTable.memoryPages[slot] = minimumPages;
  const pagesMax = manifest.memory === null ? 0 : (manifest.memory.maximumPages ?? PAGES_MAX);
  hostTable.memoryPagesMax[slot] = isXen ? Math.min(pagesMax, PAGES_MAX_XEN) : pagesMax;
  writeSegments(context, plan);
  return isXen ? writeStartInfo(context, plan, START_INFO_GFN) : 0;
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
const writeStartInfo = (context: HostContext, plan: BuildPlan, gfn: number): number => {
  const { hypervisor } = context;
  const { slot } = plan;
  populate(context, plan, gfn, 1);
  const hooked = addToPhysmap(hypervisor, slot, XENMAPSPACE_shared_info, 0, SHARED_INFO_GFN);
  if (hooked !== 0) throw new XenolithError("VMA_EXHAUSTED", `cannot map shared_info: ${errnoName(hooked) ?? hooked}`);
  const bytes = new Uint8Array(start_info.sizeBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode(START_INFO_MAGIC), start_info.magic.offset);
  start_info.nr_pages.set(view, 0, hypervisor.domains.totPages[slot]!);
  start_info.shared_info.set(view, 0, SHARED_INFO_GFN * FRAME_BYTES);
  bytes.set(new TextEncoder().encode(plan.commandLine), start_info.cmd_line.offset);
  new GuestMemory(hypervisor, slot).copyToGuest(gfn * FRAME_BYTES, bytes);
  return gfn * FRAME_BYTES;
};
