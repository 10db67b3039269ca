/**
 * Makes a domain out of options: row, address space, memory, files, streams. On failure everything is taken back.
 */
import { errnoName, XenolithError } from "@xenolith/abi";
import { attachSpace, createDomain, findDomain, setTarget } from "@xenolith/core";
import { closeDescriptor } from "@xenolith/sys";
import type { AddressSpace } from "./address-space-pool.ts";
import { buildDomain } from "./builder.ts";
import { CONSOLE_GFN } from "./rings.ts";
import { ConsoleStream } from "./console-stream.ts";
import {
  type DomainName,
  type DomainOptions,
  extraFramesOf,
  framesOf,
  MEMORY_BYTES_DEFAULT,
  openDirectories,
  SECRET_BYTES_DEFAULT,
  wasiConfiguration,
} from "./domain-options.ts";
import type { DomainParts } from "./domain-parts.ts";
import { dismantle } from "./domain-teardown.ts";
import type { HostContext } from "./host-context.ts";
import type { BootImage } from "./image.ts";
import { listOffered } from "./offered-functions.ts";
import { FRAME_BYTES } from "./mmu.ts";
import { DomainStdio, filetypeOf } from "./stdio.ts";
import { attachDescriptors, createDescriptorBuffer, openInitialDescriptors } from "./wasi/index.ts";
import type { XenstoreDomain } from "./xenstore-service.ts";

/** Everything of a domain but what happens when it is gone. */
export type AssembledParts = Omit<DomainParts, "onDestroyed">;

/**
 * Creates a paused domain with its memory filled.
 *
 * @throws XenolithError `DOMAIN_LIMIT`, `MEMORY_EXHAUSTED`, `MEMORY_LIMIT`, `VMA_EXHAUSTED`, `INVALID_SIZE`,
 * `INVALID_ARGUMENT`, `DIRECTORY_NOT_FOUND`, `DOMAIN_NOT_FOUND`, `MODULE_INVALID`.
 */
export const assembleDomain = async (
  context: HostContext,
  image: BootImage,
  options: DomainOptions,
): Promise<AssembledParts> => {
  const { hypervisor, hostTable, spaces } = context;
  const { machineFrames } = hypervisor.geometry;
  const memoryBytesMax = options.memoryBytesMax ?? Math.min(MEMORY_BYTES_DEFAULT, machineFrames * FRAME_BYTES);
  const pagesMax = framesOf(memoryBytesMax, machineFrames);
  const offered = listOffered(options.imports);
  const files = openFiles(options);
  let slot: number | undefined;
  let space: AddressSpace | undefined;
  let console: ConsoleStream | undefined;
  try {
    slot = createRow(context, options);
    if (options.deviceModelFor !== undefined) makeDeviceModel(context, slot, options.deviceModelFor);
    hostTable.reset(slot, hypervisor.geometry.vcpusPerDomain);
    space = spaces.take();
    attach(context, slot, space);
    const { commandLine = "", memoryClaimBytes = 0 } = options;
    const claimPages = extraFramesOf(memoryClaimBytes, machineFrames);
    const plan = { slot, image, pagesMax, claimPages, commandLine };
    const { startInfo, rings } = buildDomain(context, plan);
    const name = options.name ?? String(hypervisor.domains.domid[slot]);
    const wasi = wasiConfiguration(options, name, files);
    console = new ConsoleStream(hypervisor, slot);
    serveRings(context, console, { slot, name, memoryBytesMax, rings });
    context.guestSecrets.begin(slot, options.secretBytesMax ?? SECRET_BYTES_DEFAULT);
    return {
      context,
      slot,
      name,
      image,
      space,
      wasi,
      offered,
      console,
      startInfo,
      stdio: files.stdio,
      descriptors: files.table,
    };
  } catch (error) {
    files.table.closeAll();
    if (slot !== undefined) {
      const domid = hypervisor.domains.domid[slot]!;
      await dismantle(context, slot, space, async () => {
        console?.finish();
        await context.xenstore.release(domid);
      });
    }
    throw error;
  }
};

/** Opens what a WASI guest starts with. */
const openFiles = (options: DomainOptions) => {
  const stdio = new DomainStdio(options.stdio ?? {});
  const descriptors = createDescriptorBuffer(options.descriptorCountMax);
  const table = attachDescriptors(descriptors);
  const preopens = openDirectories(options.directories ?? []);
  const filetype = (stream: number): number => filetypeOf(stdio.configuration, stream);
  const opened = openInitialDescriptors(table, { filetype }, preopens);
  if (opened === preopens.length) return { stdio, descriptors, table, preopens };
  for (const { hostFd } of preopens.slice(opened)) closeDescriptor(hostFd);
  table.closeAll();
  throw new XenolithError(
    "INVALID_ARGUMENT",
    `${preopens.length} directories do not fit into ${table.capacity} descriptors`,
  );
};

/** Serves the console ring and xenstore of a domain that has rings; one without has a home in the store all the same. */
const serveRings = (context: HostContext, console: ConsoleStream, domain: XenstoreDomain): void => {
  const { hypervisor, events, ringFrames, xenstore } = context;
  const { slot, rings } = domain;
  try {
    const frame = rings === undefined ? undefined : ringFrames.open(slot, CONSOLE_GFN);
    if (rings !== undefined && frame !== undefined) console.attach(frame, events, rings.consolePort);
    xenstore.add(domain);
  } catch (cause) {
    const limit = `${hypervisor.events.portsPerDomain - 1} of the control domain`;
    throw new XenolithError("DOMAIN_LIMIT", `the guest needs two event channels, all ${limit} are in use`, { cause });
  }
};

/** A new row of the domain table. */
const createRow = ({ hypervisor, policy }: HostContext, options: DomainOptions): number => {
  const { machineFrames } = hypervisor.geometry;
  const narrowing = policy.narrowingOf(options);
  const domid = createDomain(hypervisor, {
    vcpus: options.vcpus ?? 1,
    deviceModelPages: extraFramesOf(options.deviceModelMemoryBytes ?? 0, machineFrames),
    ...(narrowing === undefined ? {} : { narrowing }),
    ...(options.vmaBudget === undefined ? {} : { vmaBudget: options.vmaBudget }),
    ...(options.privileged === undefined ? {} : { privileged: options.privileged }),
  });
  if (domid >= 0) return hypervisor.domains.slotOf(domid);
  switch (errnoName(domid)) {
    case "ENOSPC":
      throw new XenolithError(
        "DOMAIN_LIMIT",
        `the host holds ${hypervisor.geometry.domainCountMax - 2} domains already`,
      );
    case "ENOMEM":
      throw new XenolithError("MEMORY_EXHAUSTED", "the machine has no free frame for another domain");
    default:
      throw new XenolithError("HYPERCALL_FAILED", `createdomain failed: ${errnoName(domid) ?? domid}`);
  }
};

const makeDeviceModel = ({ hypervisor }: HostContext, slot: number, { domid, generation }: DomainName): void => {
  const target = findDomain(hypervisor, domid, generation);
  const result = target < 0 ? target : setTarget(hypervisor, slot, target);
  if (result === 0) return;
  throw new XenolithError(
    "DOMAIN_NOT_FOUND",
    `cannot make a device model for domain ${domid}: ${errnoName(result) ?? result}`,
  );
};

const attach = ({ hypervisor }: HostContext, slot: number, space: AddressSpace): void => {
  const result = attachSpace(hypervisor, slot, space.base);
  if (result !== 0)
    throw new XenolithError("VMA_EXHAUSTED", `cannot attach an address space: ${errnoName(result) ?? result}`);
};
