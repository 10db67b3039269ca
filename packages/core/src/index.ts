// The hypervisor: machine and guest memory, domains, events, policy, hypercalls. No I/O, clock, randomness or FFI.

// What a hypervisor is made of, and what it asks of the thread that executes it.
export type { Platform, Mmu } from "./platform.ts";
export type { Geometry } from "./geometry.ts";
export { productionGeometry } from "./geometry.ts";
export type { HypervisorStorage, ThreadContext } from "./hypervisor.ts";
export { controlBytes, grantBytes, Hypervisor } from "./hypervisor.ts";
export { initialise } from "./boot.ts";
export { audit } from "./auditor.ts";
export {
  ATTENTION_CONSOLE,
  ATTENTION_DOMAIN,
  ATTENTION_EVENT,
  ATTENTION_REQUEST,
  ATTENTION_REVOKED,
  ATTENTION_SERVICE,
  ATTENTION_TIMER,
} from "./attention.ts";
export { enterGate, GATE_DOWN, GATE_IN, GATE_PAUSE, GATE_STOP, leaveGate, requestGate, withdrawGate } from "./gate.ts";

// Domains.
export { dmaSlot, DOM0_SLOT, DOMAIN_STATES } from "./domain-table.ts";
export type { DomainState } from "./domain-table.ts";
export { DOMAIN_EVENTS, nextState } from "./lifecycle.ts";
export type { DomainEvent } from "./lifecycle.ts";
export { createDomain, VMA_BUDGET_DEFAULT } from "./domain-create.ts";
export type { DomainSpec } from "./domain-create.ts";
export {
  crashDomain,
  crashReason,
  domainQuiet,
  findDomain,
  recordShutdownCode,
  requestVcpus,
  setHandle,
  setTarget,
  shutdownDomain,
} from "./domain-ops.ts";
export {
  freezeMemory,
  isPageCount,
  MAX_PAGES_MAX,
  memoryLimits,
  setExtraPages,
  setMaxPages,
  setMaxPagesByModel,
  setOwnPages,
  thawMemory,
} from "./memory-limits.ts";
export type { MemoryLimits } from "./memory-limits.ts";
export {
  pauseDomain,
  PAUSE_COUNT_MAX,
  resumeDomain,
  unpauseDomain,
  vcpuThreadGone,
  vcpuThreadStarted,
} from "./domain-run.ts";
export { beginDestroy, continueDestroy, reapDomains, reapStage, REAP_SLICE, REAP_STAGES } from "./domain-reap.ts";
export type { ReapStage } from "./domain-reap.ts";
export { domainFlags, domainInfo, listDomains } from "./domain-info.ts";
export type { DomainInfo } from "./domain-info.ts";
export { TRACE_EVENTS } from "./trace-table.ts";
export type { TraceEvent, TraceRecord } from "./trace-table.ts";
export { CONSOLE_LINE_BYTES, CONSOLE_RING_BYTES } from "./console-table.ts";

// Hypercalls.
export type { Cpu, Handler } from "./cpu.ts";
export {
  createCpu,
  enterHypercall,
  failInside,
  hypercall,
  HYPERCALL_COUNT,
  hypercallTable,
  leaveHypercall,
} from "./hypercall.ts";
export { probeStack, STACK_PROBE_BYTES, stackProbeText, warmStackProbe } from "./stack-probe.ts";
export { authorise } from "./door.ts";
export { isPrivileged, mayAct, resolveDomain } from "./policy.ts";
export { operationIndex, operationNames, operations } from "./operations.ts";
export type { Operation } from "./operations.ts";
export {
  DOMID_RULES_MAX,
  NARROW_DENIED,
  NARROW_MIDDLE,
  NARROW_NOTHING,
  NARROW_PRIVILEGED,
  OPERATION_COUNT_MAX,
} from "./narrowing-table.ts";
export type { Narrowing } from "./narrowing-table.ts";
export { ACCESS_CLASSES, policy } from "./policy-table.ts";
export type { Access, HypercallPolicy } from "./policy-table.ts";

// Machine memory.
export { FrameTable, HYPERVISOR_OWNER } from "./frame-table.ts";
export { allocateFrames, freeFrameCount, freeFrames, layFreeFrames } from "./buddy.ts";
export { DirectMap, FRAME_BYTES } from "./direct-map.ts";
export { GuestMemory, SCRATCH_BYTES } from "./guest-memory.ts";
export {
  isGuestWritable,
  P2M_EXTENT_RO,
  P2M_EXTENT_RW,
  P2M_FOREIGN,
  P2M_GRANT_RO,
  P2M_GRANT_RW,
  P2M_HOLE,
  P2M_RAM,
  P2M_RAM_RO,
  P2M_SECRET_RO,
  P2M_SECRET_RW,
  isSecret,
  P2M_SPECIAL,
  P2M_ZERO,
  P2m,
  p2mMfn,
  p2mType,
} from "./p2m.ts";
export { attachSpace, detachSpace, hookRun, unhookRun } from "./address-space.ts";
export { kernelMerges, vmaTotal } from "./vma.ts";
export {
  assignPages,
  type FreeFrames,
  freeFramesNow,
  isAlive,
  outstandingClaims,
  replaceClaim,
  setClaim,
  unassignPages,
} from "./accounting.ts";
export { addReference, getFrame, putFrame } from "./frame-reference.ts";
export { depopulateRun, populateRun, relinquishMemory } from "./memory-populate.ts";
export type { Populated } from "./memory-populate.ts";
export { addToPhysmap, removeFromPhysmap } from "./memory-physmap.ts";
export { memoryOp } from "./memory-op.ts";
export { auditMemory } from "./audit-memory.ts";

// Extents: runs of frames that the control domain shares.
export { closeExtent, createExtent, extentRunLength, isExtentOpen } from "./extent.ts";
export { extentMappingState } from "./extent-mapping.ts";
export type { ExtentMappingState } from "./extent-mapping.ts";
export { mapExtent, restoreMapping, unmapExtent, unmapOwn } from "./extent-map.ts";
export type { ExtentTarget } from "./extent-map.ts";
export { createSecretExtent, mapSecret, sealExtent } from "./secret-extent.ts";
export type { SecretTarget } from "./secret-extent.ts";
export { isNextSecret, SECRET_PAGES_MAX } from "./secret-frames.ts";
export { reapExtents, revokeExtent, revokeMapping } from "./extent-revoke.ts";
export { findHoles, isHoleRun } from "./holes.ts";
export { auditExtents } from "./audit-extents.ts";

// Events.
export { eventChannelOp } from "./event-channel-op.ts";
export {
  clearPending,
  isPending,
  isUpcallDeliverable,
  isUpcallPending,
  maskPort,
  sendPort,
  setPending,
  takePending,
  unmaskPort,
} from "./event-delivery.ts";
export {
  allocatePort,
  allocateUnbound,
  bindInterdomain,
  bindIpi,
  bindPirq,
  bindVcpu,
  bindVirq,
  closeAnyPort,
  closePort,
} from "./event-ports.ts";
export { portKind, portPayload, portRemotePort, portRemoteSlot, portVcpu, portWord } from "./event-table.ts";
export { beginReset, closeAllPorts, continueReset, openPortCount, RESET_MORE, resetEvents } from "./event-reset.ts";
export { createEvents, releaseEvents } from "./event-lifetime.ts";
export { DELAY_FIRST_NS, DELAY_MAX_NS, EventThrottle, lateEoiDelayNs, SPURIOUS_FREE_COUNT } from "./event-throttle.ts";
export { raiseGlobalVirq, raiseVirq, returnVirqs, setVirqOwner, virqKind } from "./virq.ts";
export { auditEvents } from "./audit-events.ts";

// Physical interrupts.
export { physdevOp } from "./physdev-op.ts";
export {
  endPirq,
  isIrqPermitted,
  isPirqPending,
  lowerPirq,
  mapPirq,
  permitIrq,
  raisePirq,
  reservePirq,
  resumePirq,
  unmapPirq,
} from "./pirq.ts";
export { GSI_COUNT, IRQ_COUNT, IRQ_MSI_BASE, PIRQ_COUNT } from "./pirq-table.ts";

// vCPUs, blocking and time.
export { schedOp } from "./sched-op.ts";
export { vcpuOp } from "./vcpu-op.ts";
export { blockVcpu, cancelBlock, passGate, prepareBlock, wakeVcpu } from "./block.ts";
export {
  FUTEX_FAULT,
  FUTEX_NOT_EQUAL,
  FUTEX_TIMED_OUT,
  FUTEX_WOKEN,
  guestNotify,
  guestWait32,
  guestWait64,
} from "./futex.ts";
export { busyNs, changeRunstate, runstate } from "./runstate.ts";
export { refreshTime, updateSystemTime, updateWallClock } from "./system-time.ts";
export {
  expireTimers,
  nextTimer,
  SERVICE_INTERVAL_NS,
  setPeriodic,
  setSingleshot,
  setTimerOp,
  stopTimers,
} from "./timers.ts";
export { earliestDeadline, serviceTimers } from "./timer-service.ts";
export { setWatchdog } from "./watchdog.ts";
export {
  beginVcpu,
  bringUp,
  endVcpu,
  initialiseVcpu,
  isUp,
  onlineVcpuCount,
  requestVcpuStart,
  takeDown,
  takeStartRequest,
  vcpuStartRequests,
} from "./vcpu-life.ts";
export type { VcpuEntry, VcpuStartRequest } from "./vcpu-life.ts";
export {
  VCPU_BLOCKED,
  VCPU_DOWN,
  VCPU_INITIALISED,
  VCPU_NMI_PENDING,
  VCPU_OFFLINE,
  VCPU_RUNNABLE,
  VCPU_RUNNING,
  VCPU_STARTED,
} from "./vcpu-table.ts";

// Grants.
export { createMapRequest, mapGrant } from "./grant-map.ts";
export type { MapRequest } from "./grant-map.ts";
export { LOCAL_PROVIDED } from "./grant-mapping.ts";
export { CopyHold } from "./copy-hold.ts";
export { BATCH_MAX, MapBatch, mapBatch } from "./grant-batch.ts";
export { createUnmapRequest, dropMapping, unmapGrant } from "./grant-unmap.ts";
export type { UnmapRequest } from "./grant-unmap.ts";
export { UnmapBatch, unmapBatch } from "./grant-unbatch.ts";
export { grantFrame } from "./grant-grow.ts";
export { REFS_PER_FRAME } from "./grant-table.ts";
export { INVALID_HANDLE, MAPPING_SEVERED } from "./maptrack-table.ts";
export { revokeGrant } from "./grant-revoke.ts";
export { resetGrants } from "./grant-reset.ts";
export { fireRefNotify, setUnmapNotify } from "./grant-notify.ts";
export { auditGrants } from "./audit-grants.ts";

// For tests and simulation.
export { FakeMmu } from "./fake-mmu.ts";
export type { MmuCall } from "./fake-mmu.ts";
export { createTestHypervisor, FakePlatform, ParkedError, testGeometry } from "./fake-platform.ts";
export type { FakeWait, TestHypervisor } from "./fake-platform.ts";
export { answerServiceCall, takeServiceCalls } from "./service-call.ts";
export type { ServiceRequest } from "./service-call.ts";
