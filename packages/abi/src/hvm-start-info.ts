import { u32, u64n } from "./scalar.ts";
import { struct } from "./struct.ts";

// The boot record of a translated guest. Source: xen/include/public/arch-x86/hvm/start_info.h.

export const XEN_HVM_START_MAGIC_VALUE = 0x336e_c578;

export const XEN_HVM_MEMMAP_TYPE_RAM = 1;
export const XEN_HVM_MEMMAP_TYPE_RESERVED = 2;
export const XEN_HVM_MEMMAP_TYPE_ACPI = 3;
export const XEN_HVM_MEMMAP_TYPE_NVS = 4;
export const XEN_HVM_MEMMAP_TYPE_UNUSABLE = 5;

export const hvm_start_info = struct("hvm_start_info", 56, {
  magic: u32,
  version: u32,
  flags: u32,
  nr_modules: u32,
  modlist_paddr: u64n,
  cmdline_paddr: u64n,
  rsdp_paddr: u64n,
  memmap_paddr: u64n,
  memmap_entries: u32,
  reserved: u32,
});

export const hvm_modlist_entry = struct("hvm_modlist_entry", 32, {
  paddr: u64n,
  size: u64n,
  cmdline_paddr: u64n,
  reserved: u64n,
});

export const hvm_memmap_table_entry = struct("hvm_memmap_table_entry", 24, {
  addr: u64n,
  size: u64n,
  type: u32,
  reserved: u32,
});
