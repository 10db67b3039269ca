/**
 * The beginning and the end of a guest's secret object: the file of secret memory, the hypervisor's extent and the page
 * table's handle come and go together.
 */
import { EAGAIN, EDQUOT, EINVAL, ENOMEM, ENOSPC, ENOSYS, type ErrorCode, ESRCH, XenolithError } from "@xenolith/abi";
import { createSecretExtent, type Hypervisor } from "@xenolith/core";
import type { SecretRefusal, SecretRegion } from "@xenolith/secrets";
import { SystemCallError } from "@xenolith/sys";
import type { SecretDomain, SecretObject } from "./guest-secret-objects.ts";
import type { HostSecrets } from "./host-secrets.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { SecretFiles } from "./secret-files.ts";

/** What an object is made with. */
interface Workshop {
  readonly hypervisor: Hypervisor;
  readonly secrets: HostSecrets;
  readonly files: SecretFiles;
}

const errnos: Readonly<Partial<Record<ErrorCode, number>>> = {
  INVALID_SIZE: EINVAL,
  SECRET_CEILING: ENOSPC,
  SECRET_MEMLOCK: EAGAIN,
  SECRET_MEMORY: ENOMEM,
  SECRET_QUOTA: EDQUOT,
  // Its owner was closed, which happens with its domain only.
  SECRET_RELEASED: ESRCH,
  SECRET_UNSUPPORTED: ENOSYS,
  HOST_CLOSED: ESRCH,
};

/** What a guest is told of a refusal. */
export const refusedWith = ({ code }: Pick<SecretRefusal, "code">): number => -(errnos[code] ?? ENOMEM);

/** What a guest is told of an error that secret memory can cause. Others are bugs, and thrown on. */
export const errnoOf = (error: unknown): number => {
  if (error instanceof SystemCallError) return -ENOMEM;
  const errno = error instanceof XenolithError ? errnos[error.code] : undefined;
  if (errno === undefined) throw error;
  return -errno;
};

/** Makes an object for a domain, in nobody's view; or an errno, and there is nothing. */
export const makeObject = async (
  workshop: Workshop,
  maker: SecretDomain,
  pages: number,
): Promise<SecretObject | number> => {
  try {
    await workshop.secrets.pool();
    if (maker.isEnded) return -ESRCH;
    maker.owner ??= workshop.secrets.guestOwner(maker.domid, maker.quota);
    const region = await maker.owner.allocateRegionSoon(pages * FRAME_BYTES);
    return "code" in region ? refusedWith(region) : enter(workshop, maker, region);
  } catch (error) {
    return errnoOf(error);
  }
};

/** Lets the hypervisor know of a region. */
const enter = ({ hypervisor, files }: Workshop, maker: SecretDomain, region: SecretRegion): SecretObject | number => {
  try {
    // What the kernel can read stays mapped here: that keeps it out of swap.
    if (region.hidden) region.removeFromView();
    const handle = files.add({ fd: region.descriptor, hidden: region.hidden });
    const pages = region.size / FRAME_BYTES;
    const extent = createSecretExtent(hypervisor, maker.slot, pages, handle);
    if (extent > 0) {
      return { region, extent, handle, pages, maker, offers: new Map(), uses: new Set(), isSealed: false };
    }
    files.remove(handle);
    region.release();
    return extent;
  } catch (error) {
    region[Symbol.dispose]();
    throw error;
  }
};

/** Wipes an object that nobody has mapped any more, and gives its memory back. */
export const endObject = (files: SecretFiles, { region, handle }: SecretObject): void => {
  files.remove(handle);
  region[Symbol.dispose]();
};
