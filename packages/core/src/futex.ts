/**
 * Wait and notify of a guest's atomics. Waiters are found by machine address, so that they meet across two mappings of
 * one frame; they sleep on their own vCPU's wake counter.
 *
 * A waiter publishes its key and its state first and reads the value afterwards; a notifier's guest has written the
 * value first, and the notifier reads the states afterwards. So one of them sees the other. `futexState` is claimed by
 * compare-exchange, with a serial in it, so that a notifier counts each wait at most once and never a later one.
 */
import type { Cpu } from "./cpu.ts";
import { blockVcpu, cancelBlock, prepareBlock } from "./block.ts";
import { DOM0_SLOT } from "./domain-table.ts";
import type { Hypervisor } from "./hypervisor.ts";
import { COUNTER_FUTEX_TICKETS } from "./vcpu-table.ts";
import { wakeVcpu } from "./vcpu-wake.ts";

/** Results of a wait, those of memory.atomic.wait, and a bad address. */
export const FUTEX_WOKEN = 0;
export const FUTEX_NOT_EQUAL = 1;
export const FUTEX_TIMED_OUT = 2;
export const FUTEX_FAULT = -1;

/** Low bits of `futexState`. */
const WAITING = 1;
const NOTIFIED = 2;
const SERIAL_STEP = 4;
const SERIAL_BITS = ~3;

/**
 * Waits while the 32-bit number at guest `address` equals `expected` (unsigned), for `timeoutNs` at most (Infinity: no
 * limit). Returns FUTEX_*; FUTEX_FAULT: misaligned, or not readable.
 */
export const guestWait32 = (cpu: Cpu, address: number, expected: number, timeoutNs: number): number => {
  if (address % 4 !== 0) return FUTEX_FAULT;
  const key = keyOf(cpu, address);
  if (key < 0) return FUTEX_FAULT;
  const state = beginWait(cpu, key);
  const seen = prepareBlock(cpu);
  const value = cpu.memory.readU32(address);
  return finish(cpu, state, seen, { isEqual: value === expected >>> 0, isFault: value < 0, timeoutNs });
};

/** As `guestWait32`, for a 64-bit number. */
export const guestWait64 = (cpu: Cpu, address: number, expected: bigint, timeoutNs: number): number => {
  if (address % 8 !== 0) return FUTEX_FAULT;
  const key = keyOf(cpu, address);
  if (key < 0) return FUTEX_FAULT;
  const state = beginWait(cpu, key);
  const seen = prepareBlock(cpu);
  // The halves may belong to two values. Then somebody is changing the number, and whoever changes it notifies later.
  const low = cpu.memory.readU32(address);
  const high = cpu.memory.readU32(address + 4);
  const isEqual = low === Number(expected & 0xffff_ffffn) && high === Number((expected >> 32n) & 0xffff_ffffn);
  return finish(cpu, state, seen, { isEqual, isFault: low < 0 || high < 0, timeoutNs });
};

/**
 * Wakes up to `count` (unsigned) of those that wait on the number at guest `address`, first come first served. Returns
 * how many; 0 where nothing is mapped; FUTEX_FAULT: misaligned.
 */
export const guestNotify = (cpu: Cpu, address: number, count: number): number => {
  if (address % 4 !== 0) return FUTEX_FAULT;
  const key = keyOf(cpu, address);
  if (key < 0) return 0;
  let woken = 0;
  while (woken < count >>> 0) {
    const index = firstWaiter(cpu.hypervisor, key);
    if (index < 0) break;
    if (claim(cpu.hypervisor, index, key)) woken += 1;
  }
  return woken;
};

/** Machine address of guest `address`, or -1. Afterwards it is a name only: nothing is read or written through it. */
const keyOf = (cpu: Cpu, address: number): number => {
  const { locks } = cpu.hypervisor;
  locks.acquire(cpu.memory.lock);
  const key = cpu.memory.translate(address, false);
  locks.release(cpu.memory.lock);
  return key;
};

/** Publishes the caller as a waiter on `key`. Returns its state word. */
const beginWait = (cpu: Cpu, key: number): number => {
  const { vcpus } = cpu.hypervisor;
  const { index } = cpu;
  const state = ((Atomics.load(vcpus.futexState, index) + SERIAL_STEP) & SERIAL_BITS) | WAITING;
  vcpus.futexKey[index] = key + 1;
  vcpus.futexTicket[index] = Atomics.add(vcpus.counters, COUNTER_FUTEX_TICKETS, 1) >>> 0;
  Atomics.store(vcpus.futexState, index, state);
  Atomics.or(vcpus.futexMask, cpu.slot, 1 << cpu.vcpu);
  Atomics.or(vcpus.futexSlots, cpu.slot >>> 5, 1 << (cpu.slot & 31));
  return state;
};

/** Sleeps if it is right to, and takes the caller off the lists. */
const finish = (
  cpu: Cpu,
  state: number,
  seen: number,
  about: { readonly isEqual: boolean; readonly isFault: boolean; readonly timeoutNs: number },
): number => {
  const { vcpus, platform } = cpu.hypervisor;
  if (about.isEqual && cpu.slot !== DOM0_SLOT) sleepUntilNotified(cpu, state, seen, platform.now() + about.timeoutNs);
  else cancelBlock(cpu);
  const wasNotified = Atomics.compareExchange(vcpus.futexState, cpu.index, state, state & SERIAL_BITS) !== state;
  retire(cpu.hypervisor, cpu.slot, cpu.vcpu);
  if (wasNotified) return FUTEX_WOKEN;
  if (about.isFault) return FUTEX_FAULT;
  return about.isEqual ? FUTEX_TIMED_OUT : FUTEX_NOT_EQUAL;
};

const sleepUntilNotified = (cpu: Cpu, state: number, seenFirst: number, deadlineNs: number): void => {
  const { vcpus, platform } = cpu.hypervisor;
  let seen = seenFirst;
  while (Atomics.load(vcpus.futexState, cpu.index) === state && platform.now() < deadlineNs) {
    blockVcpu(cpu, deadlineNs, seen);
    seen = prepareBlock(cpu);
  }
  cancelBlock(cpu);
};

/**
 * Takes vCPU `vcpu` of `slot` off the lists of waiters. The slot's bit in `futexSlots` stays until the domain is gone:
 * clearing it could hide another vCPU that has just begun to wait.
 */
const retire = (hypervisor: Hypervisor, slot: number, vcpu: number): void => {
  const { vcpus } = hypervisor;
  vcpus.futexKey[vcpus.index(slot, vcpu)] = 0;
  Atomics.and(vcpus.futexMask, slot, ~(1 << vcpu));
};

/** Forgets a wait of a vCPU whose thread is gone. */
export const abandonWait = (hypervisor: Hypervisor, slot: number, vcpu: number): void => {
  const { vcpus } = hypervisor;
  const index = vcpus.index(slot, vcpu);
  const state = Atomics.load(vcpus.futexState, index);
  Atomics.store(vcpus.futexState, index, (state + SERIAL_STEP) & SERIAL_BITS);
  retire(hypervisor, slot, vcpu);
};

/** Forgets every wait in `slot`: its domain is new, or gone. */
export const clearWaits = (hypervisor: Hypervisor, slot: number): void => {
  const { vcpus } = hypervisor;
  for (let vcpu = 0; vcpu < vcpus.perDomain; vcpu += 1) abandonWait(hypervisor, slot, vcpu);
  Atomics.and(vcpus.futexSlots, slot >>> 5, ~(1 << (slot & 31)));
};

/** Row of the waiter on `key` that came first, or -1. */
const firstWaiter = (hypervisor: Hypervisor, key: number): number => {
  const { vcpus } = hypervisor;
  let first = -1;
  for (let group = 0; group < vcpus.futexSlots.length; group += 1) {
    for (let slots = Atomics.load(vcpus.futexSlots, group); slots !== 0; slots &= slots - 1) {
      const slot = group * 32 + lowestBit(slots);
      first = earlierIn(hypervisor, slot, key, first);
    }
  }
  return first;
};

/** The earlier of waiter `first` (-1: none) and the waiters on `key` in `slot`. */
const earlierIn = (hypervisor: Hypervisor, slot: number, key: number, first: number): number => {
  const { vcpus } = hypervisor;
  let earliest = first;
  for (let mask = Atomics.load(vcpus.futexMask, slot); mask !== 0; mask &= mask - 1) {
    const index = vcpus.index(slot, lowestBit(mask));
    const isWaiting = (Atomics.load(vcpus.futexState, index) & ~SERIAL_BITS) === WAITING;
    if (!isWaiting || vcpus.futexKey[index] !== key + 1) continue;
    const isEarlier = earliest < 0 || ((vcpus.futexTicket[index]! - vcpus.futexTicket[earliest]!) | 0) < 0;
    if (isEarlier) earliest = index;
  }
  return earliest;
};

/** Wakes waiter `index` if it still waits on `key`; false: somebody else woke it, or it gave up. */
const claim = (hypervisor: Hypervisor, index: number, key: number): boolean => {
  const { vcpus } = hypervisor;
  const state = Atomics.load(vcpus.futexState, index);
  if ((state & ~SERIAL_BITS) !== WAITING || vcpus.futexKey[index] !== key + 1) return false;
  const notified = (state & SERIAL_BITS) | NOTIFIED;
  if (Atomics.compareExchange(vcpus.futexState, index, state, notified) !== state) return false;
  wakeVcpu(hypervisor, index);
  return true;
};

const lowestBit = (word: number): number => 31 - Math.clz32(word & -word);
