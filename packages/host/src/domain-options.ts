/**
 * What a domain is created from, checked and with defaults filled in.
 */
import { constants, openSync } from "node:fs";
import { XenolithError } from "@xenolith/abi";
import { closeDescriptor } from "@xenolith/sys";
import { COMMAND_LINE_BYTES_MAX } from "./builder.ts";
import type { BootImage, ImageSource } from "./image.ts";
import type { OfferedImports } from "./offered-functions.ts";
import { FRAME_BYTES } from "./mmu.ts";
import type { StdioModes } from "./stdio.ts";
import { DESCRIPTOR_COUNT_DEFAULT, DESCRIPTOR_COUNT_MAX, type WasiPreopen } from "./wasi/index.ts";
import type { WasiConfiguration } from "./wasi-setup.ts";

/** A directory of the host that a guest may use. */
export interface SharedDirectory {
  /** Path on the host. */
  readonly host: string;
  /** Its name to the guest. */
  readonly guest: string;
  /** The guest may not change anything beneath it. */
  readonly readOnly?: boolean;
}

/** Names a domain that exists: a `Domain` does. */
export interface DomainName {
  readonly domid: number;
  readonly generation: number;
}

/** What a new domain is like. Only `image` is needed. */
export interface DomainOptions {
  /** A file, the bytes of a module, or what `Host.loadImage` returned. */
  readonly image: ImageSource | BootImage;
  /** For people; need not be unique. The domid by default. */
  readonly name?: string;
  /** Most memory that the domain may own, in bytes; 256 MiB by default, or all of a smaller machine. Rounded down to frames of 4 KiB. */
  readonly memoryBytesMax?: number;
  /** 1 (default) to 32. */
  readonly vcpus?: number;
  /** argv of a WASI guest, the program's name first. The domain's name alone by default. */
  readonly arguments?: readonly string[];
  /** Environment of a WASI guest; empty by default. */
  readonly environment?: Readonly<Record<string, string>>;
  /** Directories for a WASI guest; none by default. */
  readonly directories?: readonly SharedDirectory[];
  /** Standard streams: input is empty and output is the process's own by default. */
  readonly stdio?: StdioModes;
  /** Functions of the calling program that the module may import, beside those that every guest may. */
  readonly imports?: OfferedImports;
  /** For a Xen-style guest: start_info's cmd_line, at most 1,023 bytes. */
  readonly commandLine?: string;
  /** Files that a WASI guest may have open at once; 256 by default. */
  readonly descriptorCountMax?: number;
  /** Mappings of the process that its address space may cost; 2,048 by default. */
  readonly vmaBudget?: number;
  /**
   * Its loops look for a pause now and then, so that it can be paused while it computes; that costs a tenth of the speed
   * of most programs and up to half of tight loops. Without it a pause waits for the next hypercall.
   */
  readonly preemptible?: boolean;
  /** It may make the hypercalls of a control domain, on every domain but dom0. */
  readonly privileged?: boolean;
  /** Which rules of the host's policy are about it, beside those that name it; none by default. */
  readonly label?: string;
  /** Bytes set aside for it before it is built, so that it can come to own that many; at most `memoryBytesMax`, 0 by default. */
  readonly memoryClaimBytes?: number;
  /**
   * Secret memory that it may have by secret_op, in bytes; 64 KiB by default, 0 for none. It is no part of
   * `memoryBytesMax`. What it may have mapped, its own and others', has the same limit.
   */
  readonly secretBytesMax?: number;
  /** By how many bytes its device models may raise its `memoryBytesMax`, together; 0 by default. In frames of 4 KiB. */
  readonly deviceModelMemoryBytes?: number;
  /** The domain whose device model this one is: it may act on that one's memory, events and parameters, and no other's. */
  readonly deviceModelFor?: DomainName;
}

/** Default of `memoryBytesMax`. */
export const MEMORY_BYTES_DEFAULT = 256 * 2 ** 20;

/** Default of `secretBytesMax`. */
export const SECRET_BYTES_DEFAULT = 64 * 2 ** 10;

/** Frames that `memoryBytesMax` allows, on a machine of `machineFrames`. */
export const framesOf = (memoryBytesMax: number, machineFrames: number): number => {
  if (!Number.isFinite(memoryBytesMax) || memoryBytesMax < FRAME_BYTES) {
    throw new XenolithError(
      "INVALID_SIZE",
      `memory of a domain is ${memoryBytesMax} bytes, it must be at least ${FRAME_BYTES}`,
    );
  }
  const frames = Math.floor(memoryBytesMax / FRAME_BYTES);
  if (frames > machineFrames) {
    const machineBytes = machineFrames * FRAME_BYTES;
    throw new XenolithError(
      "INVALID_SIZE",
      `memory of a domain is ${memoryBytesMax} bytes, the machine has ${machineBytes}`,
    );
  }
  return frames;
};

/** Frames that device models may add, from a number of bytes. Throws XenolithError `INVALID_SIZE`. */
export const extraFramesOf = (memoryBytes: number, machineFrames: number): number =>
  memoryBytes === 0 ? 0 : framesOf(memoryBytes, machineFrames);

/** Refuses options that are out of range. */
export const checkOptions = (options: DomainOptions, vcpusMax: number): void => {
  const { vcpus = 1, descriptorCountMax = DESCRIPTOR_COUNT_DEFAULT, vmaBudget = 1, commandLine = "" } = options;
  checkCount("vcpus", vcpus, vcpusMax);
  checkCount("descriptorCountMax", descriptorCountMax, DESCRIPTOR_COUNT_MAX);
  checkCount("vmaBudget", vmaBudget, 2 ** 31);
  const { secretBytesMax = 0 } = options;
  if (!Number.isSafeInteger(secretBytesMax) || secretBytesMax < 0) {
    throw new XenolithError(
      "INVALID_SIZE",
      `secretBytesMax is ${secretBytesMax}, it must be a whole number of 0 or more`,
    );
  }
  const commandLineBytes = Buffer.byteLength(commandLine);
  if (commandLineBytes > COMMAND_LINE_BYTES_MAX) {
    throw new XenolithError(
      "INVALID_ARGUMENT",
      `command line is ${commandLineBytes} bytes, the limit is ${COMMAND_LINE_BYTES_MAX}`,
    );
  }
  for (const text of [...(options.arguments ?? []), ...Object.entries(options.environment ?? {}).flat()]) {
    if (text.includes("\0"))
      throw new XenolithError("INVALID_ARGUMENT", `argument or variable ${JSON.stringify(text)} holds a zero byte`);
  }
};

const checkCount = (name: string, value: number, limit: number): void => {
  if (!Number.isInteger(value) || value < 1 || value > limit) {
    throw new XenolithError("INVALID_ARGUMENT", `${name} is ${value}, it must be a whole number from 1 to ${limit}`);
  }
};

/** Opens the directories; on failure none stays open. Throws XenolithError `DIRECTORY_NOT_FOUND`. */
export const openDirectories = (directories: readonly SharedDirectory[]): readonly WasiPreopen[] => {
  const opened: WasiPreopen[] = [];
  try {
    for (const directory of directories) opened.push(openDirectory(directory));
    return opened;
  } catch (error) {
    for (const { hostFd } of opened) closeDescriptor(hostFd);
    throw error;
  }
};

const openDirectory = ({ host, guest, readOnly }: SharedDirectory): WasiPreopen => {
  try {
    return {
      guestPath: new TextEncoder().encode(guest),
      hostFd: openSync(host, constants.O_RDONLY | constants.O_DIRECTORY),
      readOnly: readOnly === true,
    };
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : String(cause);
    throw new XenolithError("DIRECTORY_NOT_FOUND", `cannot share directory ${JSON.stringify(host)}: ${reason}`, {
      cause,
    });
  }
};

/** What the vCPUs are told about WASI. */
export const wasiConfiguration = (
  options: DomainOptions,
  name: string,
  opened: { readonly preopens: readonly WasiPreopen[]; readonly descriptors: SharedArrayBuffer },
): WasiConfiguration => {
  const encoder = new TextEncoder();
  return {
    arguments: (options.arguments ?? [name]).map((text) => encoder.encode(text)),
    environment: Object.entries(options.environment ?? {}).map(([key, value]) => encoder.encode(`${key}=${value}`)),
    preopens: opened.preopens,
    descriptors: opened.descriptors,
  };
};
