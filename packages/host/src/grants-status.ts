/**
 * The statuses of grant operations in words, for messages.
 */
import * as abi from "@xenolith/abi";

const names = new Map<number, string>([
  [abi.GNTST_okay, "GNTST_okay"],
  [abi.GNTST_general_error, "GNTST_general_error"],
  [abi.GNTST_bad_domain, "GNTST_bad_domain"],
  [abi.GNTST_bad_gntref, "GNTST_bad_gntref"],
  [abi.GNTST_bad_handle, "GNTST_bad_handle"],
  [abi.GNTST_bad_virt_addr, "GNTST_bad_virt_addr"],
  [abi.GNTST_bad_dev_addr, "GNTST_bad_dev_addr"],
  [abi.GNTST_no_device_space, "GNTST_no_device_space"],
  [abi.GNTST_permission_denied, "GNTST_permission_denied"],
  [abi.GNTST_bad_page, "GNTST_bad_page"],
  [abi.GNTST_bad_copy_arg, "GNTST_bad_copy_arg"],
  [abi.GNTST_address_too_big, "GNTST_address_too_big"],
  [abi.GNTST_eagain, "GNTST_eagain"],
  [abi.GNTST_no_space, "GNTST_no_space"],
]);

/** Xen's name of a status, or the number. */
export const statusName = (status: number): string => names.get(status) ?? String(status);
