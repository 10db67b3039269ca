/**
 * Timers of vCPUs, single-shot and periodic. They are numbers in tables: a vCPU that blocks serves its own, the control
 * domain serves those of running vCPUs (timer-service.ts).
 *
 * A domain's timers change under its event lock. Deadlines are nanoseconds of system time; 0 is off and Infinity never.
 * Events are raised after the lock is given back.
 */
import { EINVAL, VIRQ_TIMER } from "@xenolith/abi";
import { ATTENTION_TIMER } from "./attention.ts";
import type { Handler } from "./cpu.ts";
import { lockEvents, unlockEvents } from "./event-ports.ts";
import { ARMED, WATCHDOG_COUNT } from "./event-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { refreshTime } from "./system-time.ts";
import { raiseVirq } from "./virq.ts";

/** The control domain serves timers at most this often, whatever guests ask for. */
export const SERVICE_INTERVAL_NS = 200_000;
/** Shortest period of a periodic timer. */
export const PERIOD_MIN_NS = 1_000_000;
const WORD = 0x1_0000_0000;
/** Doubles above this no longer tell nanoseconds apart; such a deadline never comes. */
const DEADLINE_MAX_NS = Number.MAX_SAFE_INTEGER;

/** set_timer_op(low, high): the single-shot timer as one 64-bit number of nanoseconds; 0 stops it. Always 0. */
export const setTimerOp: Handler = (cpu, low, high) => {
  const deadlineNs = high * WORD + low;
  setSingleshot(cpu.hypervisor, cpu.index, deadlineNs > DEADLINE_MAX_NS ? Infinity : deadlineNs);
  refreshTime(cpu, cpu.hypervisor.platform.now());
  return 0;
};

/** Deadline of the next timer of vCPU row `index`; Infinity when it has none. */
export const nextTimer = (hypervisor: Hypervisor, index: number): number => {
  const { vcpus } = hypervisor;
  const single = vcpus.singleshotNs[index]!;
  const periodic = vcpus.periodicNs[index]! === 0 ? Infinity : vcpus.periodicNextNs[index]!;
  return Math.min(single === 0 ? Infinity : single, periodic);
};

/**
 * Sets the single-shot timer of vCPU row `index` to an absolute deadline; 0 stops it. One in the past fires at once,
 * from here, and is then off.
 */
export const setSingleshot = (hypervisor: Hypervisor, index: number, deadlineNs: number): void => {
  const { vcpus } = hypervisor;
  const slot = slotOfRow(hypervisor, index);
  const isPast = deadlineNs !== 0 && deadlineNs <= hypervisor.platform.now();
  lockEvents(hypervisor, slot, slot);
  vcpus.singleshotNs[index] = isPast ? 0 : deadlineNs;
  unlockEvents(hypervisor, slot, slot);
  if (isPast) raiseVirq(hypervisor, slot, VIRQ_TIMER, index - vcpus.index(slot, 0));
  else if (deadlineNs !== 0) announceTimer(hypervisor, deadlineNs);
};

/** Lets vCPU row `index` tick every `periodNs`; 0 stops it. -EINVAL: shorter than PERIOD_MIN_NS, or endless. */
export const setPeriodic = (hypervisor: Hypervisor, index: number, periodNs: number): number => {
  const { vcpus } = hypervisor;
  if (periodNs !== 0 && !(periodNs >= PERIOD_MIN_NS && periodNs < Infinity)) return -EINVAL;
  const slot = slotOfRow(hypervisor, index);
  const next = hypervisor.platform.now() + periodNs;
  lockEvents(hypervisor, slot, slot);
  vcpus.periodicNs[index] = periodNs;
  vcpus.periodicNextNs[index] = periodNs === 0 ? 0 : next;
  unlockEvents(hypervisor, slot, slot);
  if (periodNs !== 0) announceTimer(hypervisor, next);
  return 0;
};

/** Raises VIRQ_TIMER when a timer of vCPU row `index` is due; periodic ones that were missed are not made up for. */
export const expireTimers = (hypervisor: Hypervisor, index: number, now: number): void => {
  if (nextTimer(hypervisor, index) > now) return;
  const { vcpus } = hypervisor;
  const slot = slotOfRow(hypervisor, index);
  lockEvents(hypervisor, slot, slot);
  const single = vcpus.singleshotNs[index]!;
  const isSingleDue = single !== 0 && single <= now;
  if (isSingleDue) vcpus.singleshotNs[index] = 0;
  const period = vcpus.periodicNs[index]!;
  const isPeriodicDue = period !== 0 && vcpus.periodicNextNs[index]! <= now;
  if (isPeriodicDue) vcpus.periodicNextNs[index] = nextTick(vcpus.periodicNextNs[index]!, period, now);
  unlockEvents(hypervisor, slot, slot);
  if (isSingleDue || isPeriodicDue) raiseVirq(hypervisor, slot, VIRQ_TIMER, index - vcpus.index(slot, 0));
};

/** First tick after `now` of the series that `due` belongs to. Strictly later than `now`. */
export const nextTick = (due: number, periodNs: number, now: number): number => {
  const next = due + (Math.floor((now - due) / periodNs) + 1) * periodNs;
  return next > now ? next : now + periodNs;
};

/** Switches off every timer of the domain in `slot`, its watchdogs too. */
export const stopTimers = (hypervisor: Hypervisor, slot: number): void => {
  const { domains, events, vcpus } = hypervisor;
  lockEvents(hypervisor, slot, slot);
  const first = vcpus.index(slot, 0);
  const end = first + domains.vcpuCount[slot]!;
  for (const column of [vcpus.singleshotNs, vcpus.periodicNs, vcpus.periodicNextNs]) column.fill(0, first, end);
  events.watchdogNs.fill(0, slot * WATCHDOG_COUNT, (slot + 1) * WATCHDOG_COUNT);
  unlockEvents(hypervisor, slot, slot);
};

/**
 * Tells the control domain of a deadline before the one it sleeps for, unless it is going to look within its interval
 * anyway: a flood of timers costs it no more than one look per interval.
 */
export const announceTimer = (hypervisor: Hypervisor, deadlineNs: number): void => {
  if (deadlineNs === Infinity) return;
  const armed = hypervisor.events.armedNs[ARMED]!;
  if (armed !== 0 && (deadlineNs >= armed || armed <= hypervisor.platform.now() + SERVICE_INTERVAL_NS)) return;
  hypervisor.attention.raise(ATTENTION_TIMER);
};

const slotOfRow = (hypervisor: Hypervisor, index: number): number => Math.floor(index / hypervisor.vcpus.perDomain);
