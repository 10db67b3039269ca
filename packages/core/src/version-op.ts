/**
 * xen_version: what the hypervisor says about itself. Every reply is zero to the end of its field; where the caller may
 * not know something it gets a placeholder text rather than an error. Source: xen/include/public/version.h, features.h.
 */
import * as abi from "@xenolith/abi";
import type { Cpu, Handler } from "./cpu.ts";
import { FRAME_BYTES } from "./direct-map.ts";
import { isPrivileged } from "./policy.ts";
import { XEN_MAJOR, XEN_MINOR } from "./quick-version.ts";

const { EFAULT, EINVAL, ENOBUFS, ENODATA, ENOSYS } = abi;

const ascii = (text: string): Uint8Array => Uint8Array.from(text, (letter) => letter.charCodeAt(0));

const EXTRAVERSION = ascii("-xenolith");
const CAPABILITIES = ascii("xen-3.0-wasm_32 hvm-3.0-wasm_32");
const CHANGESET = ascii("unavailable");
const COMMANDLINE = ascii("");
const DENIED = ascii("<denied>");
const COMPILER = ascii("typescript");
const BUILT_BY = ascii("xenolith");
const BUILT_ON = ascii("localhost");
const BUILT_WHEN = ascii("unknown");
/** The running program has no build id. */
const BUILD_ID: Uint8Array | undefined = undefined;

const feature = (...bits: readonly number[]): number => bits.reduce((map, bit) => map | (1 << bit), 0);
const FEATURES = feature(
  abi.XENFEAT_writable_page_tables,
  abi.XENFEAT_auto_translated_physmap,
  abi.XENFEAT_hvm_pirqs,
  abi.XENFEAT_not_direct_mapped,
  abi.XENFEAT_runstate_phys_area,
  abi.XENFEAT_vcpu_time_phys_area,
);
const FEATURES_DOM0 = feature(abi.XENFEAT_dom0);

/** xen_version(command, arg). -ENOSYS: no such command, -EFAULT, -EINVAL, -ENOBUFS, -ENODATA as each command says. */
export const xenVersion: Handler = (cpu, command, arg) => {
  switch (command) {
    case abi.XENVER_version:
      return (XEN_MAJOR << 16) | XEN_MINOR;
    case abi.XENVER_pagesize:
      return arg === 0 ? FRAME_BYTES : -EINVAL;
    case abi.XENVER_extraversion:
      return replyText(cpu, arg, EXTRAVERSION, abi.XEN_EXTRAVERSION_LEN);
    case abi.XENVER_capabilities:
      return replyText(cpu, arg, CAPABILITIES, abi.XEN_CAPABILITIES_INFO_LEN);
    case abi.XENVER_changeset:
      return replyText(cpu, arg, CHANGESET, abi.XEN_CHANGESET_INFO_LEN);
    case abi.XENVER_commandline:
      return replyText(cpu, arg, commandLine(cpu), abi.XEN_COMMANDLINE_LEN);
    case abi.XENVER_compile_info:
      return replyCompileInfo(cpu, arg);
    case abi.XENVER_platform_parameters:
      return replyText(cpu, arg, COMMANDLINE, abi.xen_platform_parameters.sizeBytes);
    case abi.XENVER_guest_handle:
      return replyHandle(cpu, arg);
    case abi.XENVER_get_features:
      return replyFeatures(cpu, arg);
    case abi.XENVER_build_id:
      return BUILD_ID === undefined ? -ENODATA : replyBuffer(cpu, arg, BUILD_ID);
    case abi.XENVER_extraversion2:
      return replyBuffer(cpu, arg, EXTRAVERSION);
    case abi.XENVER_capabilities2:
      return replyBuffer(cpu, arg, CAPABILITIES);
    case abi.XENVER_changeset2:
      return replyBuffer(cpu, arg, CHANGESET);
    case abi.XENVER_commandline2:
      return replyBuffer(cpu, arg, commandLine(cpu));
    default:
      return -ENOSYS;
  }
};

const commandLine = (cpu: Cpu): Uint8Array => (isPrivileged(cpu.hypervisor, cpu.slot) ? COMMANDLINE : DENIED);

/** Puts `text` at `offset` of the scratch buffer and zeros behind it, `sizeBytes` in all. */
const fillField = (cpu: Cpu, offset: number, text: Uint8Array, sizeBytes: number): void => {
  const { scratch } = cpu.memory;
  for (let i = 0; i < sizeBytes; i += 1) scratch.setUint8(offset + i, i < text.length ? text[i]! : 0);
};

/** Writes a string field of fixed size. */
const replyText = (cpu: Cpu, arg: number, text: Uint8Array, sizeBytes: number): number => {
  fillField(cpu, 0, text, sizeBytes);
  return cpu.memory.store(arg, sizeBytes) ? 0 : -EFAULT;
};

const replyCompileInfo = (cpu: Cpu, arg: number): number => {
  const info = abi.xen_compile_info;
  fillField(cpu, info.compiler.offset, COMPILER, info.compiler.length);
  fillField(cpu, info.compile_by.offset, BUILT_BY, info.compile_by.length);
  fillField(cpu, info.compile_domain.offset, BUILT_ON, info.compile_domain.length);
  fillField(cpu, info.compile_date.offset, BUILT_WHEN, info.compile_date.length);
  return cpu.memory.store(arg, info.sizeBytes) ? 0 : -EFAULT;
};

const replyHandle = (cpu: Cpu, arg: number): number => {
  const { handle } = cpu.hypervisor.domains;
  const { memory } = cpu;
  for (let i = 0; i < 16; i += 1) memory.scratch.setUint8(i, handle[cpu.slot * 16 + i]!);
  return memory.store(arg, 16) ? 0 : -EFAULT;
};

const replyFeatures = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor, slot } = cpu;
  const info = abi.xen_feature_info;
  if (!memory.fetch(arg, info.sizeBytes)) return -EFAULT;
  if (info.submap_idx.get(memory.scratch, 0) >= abi.XENFEAT_NR_SUBMAPS) return -EINVAL;
  info.submap.set(memory.scratch, 0, FEATURES | (isPrivileged(hypervisor, slot) ? FEATURES_DOM0 : 0));
  return memory.store(arg, info.sizeBytes) ? 0 : -EFAULT;
};

/**
 * The answers with a length: a null `arg` asks for the length; else `arg` is {u32 len, char buf[len]} and gets the bytes,
 * without a zero at the end. Returns the length. -EINVAL: len is 0, -ENOBUFS: it is too small.
 */
const replyBuffer = (cpu: Cpu, arg: number, bytes: Uint8Array): number => {
  if (arg === 0) return bytes.length;
  const room = cpu.memory.readU32(arg);
  if (room < 0) return -EFAULT;
  if (room === 0) return -EINVAL;
  if (room < bytes.length) return -ENOBUFS;
  return cpu.memory.copyToGuest(arg + abi.xen_build_id.sizeBytes, bytes) === 0 ? bytes.length : -EFAULT;
};
