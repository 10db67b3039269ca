/**
 * Whether this kernel can tell which shared pages were written: userfaultfd in its asynchronous write-protect mode, and
 * the PAGEMAP_SCAN call that collects the pages. Tried on two pages of a memory file, because neither the kernel's
 * version nor its settings decide it alone.
 *
 * Source: userfaultfd(2), ioctl_userfaultfd(2), PAGEMAP_SCAN(2const), Documentation/admin-guide/mm/pagemap.rst.
 */
import { closeSync, openSync } from "node:fs";
import { closeDescriptor } from "./descriptor.ts";
import { bind, NativeBuffer, rawSystemCall, resultOf } from "./libc.ts";
import { mapAnywhere, PROT_READ_WRITE, unmap } from "./mapping.ts";
import { createMemfd } from "./memfd.ts";
import { viewMemory } from "./memory-view.ts";
import { PAGE_BYTES, systemCallNumbers } from "./platform.ts";
import { check } from "./system-call-error.ts";

const UFFD_USER_MODE_ONLY = 1;
const O_CLOEXEC = 0o2000000;
const O_NONBLOCK = 0o4000;

const UFFDIO_API = 0xc018aa3f;
const UFFDIO_REGISTER = 0xc020aa00;
const PAGEMAP_SCAN = 0xc0606610;

const UFFD_API = 0xaan;
const UFFD_FEATURE_WP_HUGETLBFS_SHMEM = 1n << 12n;
const UFFD_FEATURE_WP_UNPOPULATED = 1n << 13n;
const UFFD_FEATURE_WP_ASYNC = 1n << 15n;
const UFFDIO_REGISTER_MODE_WP = 2n;

const PM_SCAN_WP_MATCHING = 1n;
const PM_SCAN_CHECK_WPASYNC = 2n;
const PAGE_IS_WRITTEN = 2n;
const PM_SCAN_ARG_BYTES = 96;
/** struct page_region: start, end and categories. */
const PAGE_REGION_BYTES = 24;

const ioctl = bind("int ioctl(int, unsigned long, uintptr_t)");

/** How far the attempt came. */
export interface WriteTracking {
  /** Why userfaultfd cannot track writes of shared pages; undefined when it can. */
  readonly userfaultfdError?: unknown;
  /** Why PAGEMAP_SCAN does not report them; undefined when it does. */
  readonly pagemapScanError?: unknown;
}

/** Tries both. Leaves no descriptor and no mapping behind. */
export const tryWriteTracking = (): WriteTracking => {
  const lengthBytes = 2 * PAGE_BYTES;
  const fd = createMemfd({ name: "xenolith-probe", sizeBytes: lengthBytes });
  const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
  let trackerFd = -1;
  try {
    trackerFd = openTracker();
    registerRange(trackerFd, address, lengthBytes);
  } catch (userfaultfdError) {
    release(trackerFd, address, lengthBytes, fd);
    return { userfaultfdError, pagemapScanError: userfaultfdError };
  }
  try {
    scanWritten(address, lengthBytes);
    return {};
  } catch (pagemapScanError) {
    return { pagemapScanError };
  } finally {
    release(trackerFd, address, lengthBytes, fd);
  }
};

const release = (trackerFd: number, address: number, lengthBytes: number, fd: number): void => {
  if (trackerFd >= 0) closeDescriptor(trackerFd);
  check(unmap(address, lengthBytes), "munmap", { address, length: lengthBytes });
  closeDescriptor(fd);
};

const openTracker = (): number => {
  const flags = O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY;
  // SAFETY: userfaultfd takes one flags word.
  const fd = check(rawSystemCall(systemCallNumbers().userfaultfd, flags), "userfaultfd", { flags });
  const features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
  const api = words(UFFD_API, features, 0n);
  // SAFETY: struct uffdio_api is three words.
  const result = resultOf(ioctl()(fd, UFFDIO_API, api.address));
  if (result < 0) closeDescriptor(fd);
  check(result, "ioctl", { fd, request: "UFFDIO_API" });
  return fd;
};

const registerRange = (trackerFd: number, address: number, lengthBytes: number): void => {
  const register = words(BigInt(address), BigInt(lengthBytes), UFFDIO_REGISTER_MODE_WP, 0n);
  // SAFETY: struct uffdio_register is four words; the range is ours and of one mapping.
  const result = resultOf(ioctl()(trackerFd, UFFDIO_REGISTER, register.address));
  check(result, "ioctl", { fd: trackerFd, request: "UFFDIO_REGISTER" });
};

/** Protects both pages, writes the second, and expects to be told of exactly that one. */
const scanWritten = (address: number, lengthBytes: number): void => {
  const pages = new Uint8Array(viewMemory(address, lengthBytes));
  pages.fill(1);
  const pagemapFd = openSync("/proc/self/pagemap", "r");
  try {
    scan(pagemapFd, address, lengthBytes);
    pages[PAGE_BYTES] = 2;
    const regions = scan(pagemapFd, address, lengthBytes);
    const found = regions.view.getBigUint64(0, true);
    if (found !== BigInt(address + PAGE_BYTES))
      throw new Error("PAGEMAP_SCAN did not report the page that was written");
  } finally {
    closeSync(pagemapFd);
  }
};

const scan = (pagemapFd: number, address: number, lengthBytes: number): NativeBuffer => {
  const regions = new NativeBuffer(2 * PAGE_REGION_BYTES);
  const argument = words(
    BigInt(PM_SCAN_ARG_BYTES),
    PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
    BigInt(address),
    BigInt(address + lengthBytes),
    0n, // where the walk ended, written by the kernel
    BigInt(regions.address),
    2n, // regions that fit
    0n, // no limit of pages
    0n, // categories to invert
    PAGE_IS_WRITTEN, // pages that have all of these
    0n, // or any of these
    PAGE_IS_WRITTEN, // are reported with these
  );
  // SAFETY: struct pm_scan_arg is twelve words; the kernel writes at most two regions to a buffer for two.
  check(resultOf(ioctl()(pagemapFd, PAGEMAP_SCAN, argument.address)), "ioctl", { request: "PAGEMAP_SCAN" });
  return regions;
};

const words = (...values: readonly bigint[]): NativeBuffer => {
  const buffer = new NativeBuffer(values.length * 8);
  values.forEach((value, index) => {
    buffer.view.setBigUint64(index * 8, value, true);
  });
  return buffer;
};
