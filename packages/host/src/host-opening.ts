/**
 * Puts the parts of a host together.
 */
import { addonPath, exitGuard, platformRefusal, thisPlatform } from "@xenolith/sys";
import { __HYPERVISOR_key_op, __HYPERVISOR_secret_op, XenolithError } from "@xenolith/abi";
import { DOM0_SLOT, dmaSlot, Hypervisor, initialise } from "@xenolith/core";
import { AddressSpacePool } from "./address-space-pool.ts";
import { AttentionLoop } from "./attention-loop.ts";
import type { Domain } from "./domain.ts";
import { Dom0Events } from "./dom0-events.ts";
import { createSoftSpace, Dom0Space } from "./dom0-space.ts";
import { HostGrants } from "./grants.ts";
import { GuestSecrets, type GuestSecretsParts } from "./guest-secrets.ts";
import type { HostContext } from "./host-context.ts";
import { checkKeysOptions, HostKeys, type HostKeysOptions, type HostKeysParts } from "./host-keys.ts";
import { geometryOf, type HostOptions, vcpuNiceOf, warmCountOf } from "./host-options.ts";
import { HostSecrets } from "./host-secrets.ts";
import { createHostTableBuffer, HostTable } from "./host-table.ts";
import { turnOffDeoptimisation } from "./image.ts";
import { fastBank, Machine } from "./machine.ts";
import { KeyOp } from "./keys/key-op.ts";
import { secretPagesOf } from "./keys/secret-pages.ts";
import { LinuxMmu } from "./mmu.ts";
import { ThreadPlatform } from "./platform.ts";
import { HostPolicy } from "./policy.ts";
import { RingFrames } from "./ring-frame.ts";
import { SecretFiles } from "./secret-files.ts";
import { secretOp } from "./secret-op.ts";
import { ServiceCalls } from "./service-calls.ts";
import { Shares } from "./shares.ts";
import { TimerService } from "./timer-service.ts";
import { VcpuPool } from "./vcpu-pool.ts";
import type { ThreadSetting } from "./vcpu-thread.ts";
import { XenstoreService } from "./xenstore-service.ts";

/** Lock tag of the control domain's thread. */
const CONTROL_TAG = 1;

/** The parts of an open host. */
export interface HostParts {
  readonly context: HostContext;
  readonly events: Dom0Events;
  readonly timers: TimerService;
  readonly attention: AttentionLoop;
  /** Domains by slot. */
  readonly domains: Map<number, Domain>;
  readonly shares: Shares;
  readonly grants: HostGrants;
  /** Faults of our own code, as they were noted. */
  readonly faults: string[];
}

/** Faults that are kept; the first ones tell the most. */
const FAULTS_MAX = 100;

/** Opens a host. Throws XenolithError `CAPABILITY_MISSING`, `INVALID_SIZE`, `INVALID_ARGUMENT`, `CONFIG_INVALID`, `SYSTEM_CALL`. */
export const openParts = (options: HostOptions): HostParts => {
  checkPlatform();
  const warmCount = warmCountOf(options);
  const guestNice = vcpuNiceOf(options);
  const policy = new HostPolicy(options.policy);
  checkKeysOptions(options.keys);
  turnOffDeoptimisation();
  const geometry = geometryOf(options);
  const [windowMemory, dmaMemory] = [createSoftSpace(), createSoftSpace()];
  const softBases = [windowMemory.base, dmaMemory.base];
  const machine = new Machine(geometry);
  const epochNs = process.hrtime.bigint();
  const late: LateParts = { ring: (): void => {}, recover: (): void => {}, revoked: (): void => {} };
  const files = new SecretFiles();
  const hypervisor = attachHypervisor(machine, new LinuxMmu(machine.bankFds, softBases, files), epochNs, late);
  const dom0 = initialise(hypervisor);
  policy.install(hypervisor);
  const faults: string[] = [];
  const noteFault = (message: string): void => void (faults.length < FAULTS_MAX && faults.push(message));
  const domains = new Map<number, Domain>();
  const events = new Dom0Events(dom0, noteFault);
  const timers = new TimerService(hypervisor);
  const services = new ServiceCalls(hypervisor, noteFault);
  const loop = { hypervisor, events, timers, services, domains, onRevoked: () => late.revoked() };
  const attention = new AttentionLoop(loop);
  late.ring = attention.schedule;
  const hostTable = createHostTableBuffer(geometry);
  const { storage, bankFds, bankBases } = machine;
  const pool = openPool({ storage, hostTable, bankFds, bankBases, softBases, epochNs, guestNice }, warmCount);
  late.recover = () => pool.deadTags().forEach((tag) => hypervisor.locks.recover(tag));
  const ringFrames = new RingFrames(hypervisor);
  const secrets = new HostSecrets(options.secrets, noteFault);
  const context: HostContext = {
    machine,
    hypervisor,
    dom0,
    events,
    hostTable: new HostTable(hostTable, geometry),
    pool,
    spaces: new AddressSpacePool(),
    window: new Dom0Space(hypervisor, DOM0_SLOT, windowMemory),
    dmaView: new Dom0Space(hypervisor, dmaSlot(hypervisor.domains), dmaMemory),
    ringFrames,
    guestSecrets: openGuestSecrets({ hypervisor, secrets, files, noteFault }, services),
    services,
    policy,
    xenstore: new XenstoreService({ hypervisor, events, ringFrames, noteFault }),
    secrets,
    keys: openKeys({ hypervisor, secrets, services, domains, noteFault }, options.keys),
    attend: attention.serve,
    noteFault,
  };
  const grants = new HostGrants(context);
  late.revoked = () => grants.lookSoon();
  // What was raised before there was somebody to ring.
  attention.schedule();
  return { context, events, timers, attention, domains, shares: new Shares(context, domains), grants, faults };
};

interface KeysNeed extends Omit<HostKeysParts, "nameOf"> {
  readonly services: ServiceCalls;
  readonly domains: ReadonlyMap<number, Domain>;
  readonly noteFault: (message: string) => void;
}

/** The keys of the host, and of its guests. */
const openKeys = ({ services, domains, ...parts }: KeysNeed, options: HostKeysOptions | undefined): HostKeys => {
  const { hypervisor, secrets, noteFault } = parts;
  const keys = new HostKeys({ hypervisor, secrets, nameOf: (slot) => domains.get(slot)?.name ?? "" }, options);
  const keyOp = new KeyOp({ keys, secrets, noteFault });
  services.handle(__HYPERVISOR_key_op, (call) =>
    keyOp.serve({ ...call, secretPages: secretPagesOf(hypervisor, call.slot) }),
  );
  return keys;
};

const checkPlatform = (): void => {
  const refusal = platformRefusal(thisPlatform());
  if (refusal !== undefined) throw new XenolithError("CAPABILITY_MISSING", refusal);
};

/** Secret objects of guests, by secret_op. */
const openGuestSecrets = (parts: GuestSecretsParts, services: ServiceCalls): GuestSecrets => {
  const guestSecrets = new GuestSecrets(parts);
  services.handle(__HYPERVISOR_secret_op, (call) => secretOp(guestSecrets, call));
  return guestSecrets;
};

/** What is known only when there is a hypervisor. */
interface LateParts {
  ring: () => void;
  recover: () => void;
  revoked: () => void;
}

const openPool = (setting: Omit<ThreadSetting, "addonPath" | "exitGuard">, warmCount: number): VcpuPool =>
  new VcpuPool({ ...setting, addonPath: addonPath(), exitGuard: exitGuard() }, warmCount);

/** The hypervisor as the control domain's thread executes it. */
const attachHypervisor = (machine: Machine, mmu: LinuxMmu, epochNs: bigint, late: LateParts): Hypervisor => {
  const platform = new ThreadPlatform({
    mmu,
    epochNs,
    ringDoorbell: () => late.ring(),
    canPark: false,
    whileWaiting: () => late.recover(),
    discardTable: machine.discardTable,
  });
  return new Hypervisor(machine.storage, { platform, tag: CONTROL_TAG, fastBank: fastBank(machine.bankBases) });
};
