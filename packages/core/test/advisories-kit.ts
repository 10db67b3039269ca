/**
 * Tools of the advisory tests: STEP runs an operation again and again and lets an adversary act at a later point each
 * time; FAULT runs it again and again and lets a later call of the page table fail each time.
 */
import assert from "node:assert/strict";
import { audit } from "../src/auditor.ts";
import type { FakeMmu } from "../src/fake-mmu.ts";
import { Hypervisor } from "../src/hypervisor.ts";
import type { TestHypervisor } from "../src/fake-platform.ts";

/** What one interleaving is made of. Each run gets a world of its own. */
export interface Interleaving {
  readonly hypervisor: Hypervisor;
  /** The operation that is suspended. */
  readonly victim: () => void;
  /** What happens meanwhile, once, on another thread: uses `otherThread`, never the victim's view. */
  readonly adversary: () => void;
  /** Asserts what must hold afterwards, besides a clean audit. */
  readonly verify?: () => void;
  /** The adversary takes no lock: it may act while the victim holds some. */
  readonly isLockFree?: boolean;
}

/** The same machine seen from another thread: own lock tag, own scratch buffers. */
export const otherThread = (parts: TestHypervisor, tag = 2): Hypervisor =>
  new Hypervisor(parts.storage, { platform: parts.platform, tag });

const atomicNames = ["add", "and", "compareExchange", "exchange", "load", "or", "store", "sub", "xor"] as const;
type Operation = (...values: unknown[]) => unknown;
type Operations = Record<(typeof atomicNames)[number], Operation>;

/** Runs `body` and calls `observe` before each of its atomic operations. */
export const watchAtomics = (body: () => void, observe: () => void): void => {
  const table = Atomics as unknown as Operations;
  const originals = atomicNames.map((name) => [name, table[name]] as const);
  for (const [name, original] of originals) {
    table[name] = (...values) => {
      observe();
      return original(...values);
    };
  }
  try {
    body();
  } finally {
    for (const [name, original] of originals) table[name] = original;
  }
};

/** Counts the locks that `hypervisor` holds, from the moment a lock is taken until the moment it is free again. */
export const countLocks = (hypervisor: Hypervisor): { readonly held: () => number } => {
  const { locks } = hypervisor;
  const acquire = locks.acquire.bind(locks);
  const release = locks.release.bind(locks);
  let held = 0;
  locks.acquire = (lock) => {
    acquire(lock);
    held += 1;
  };
  const tryAcquire = locks.tryAcquire.bind(locks);
  locks.tryAcquire = (lock) => {
    const isTaken = tryAcquire(lock);
    held += Number(isTaken);
    return isTaken;
  };
  locks.release = (lock) => {
    const isAwaited = release(lock);
    held -= 1;
    return isAwaited;
  };
  return { held: () => held };
};

/** Runs the victim with the adversary at its `at`-th point; returns how many points there were. */
const runOnce = (about: Interleaving, at: number): number => {
  const { hypervisor, victim, adversary, isLockFree = false } = about;
  const locks = countLocks(hypervisor);
  let point = 0;
  let isInside = false;
  watchAtomics(victim, () => {
    if (isInside || (!isLockFree && locks.held() > 0)) return;
    if (point === at) {
      isInside = true;
      adversary();
      isInside = false;
    }
    point += 1;
  });
  return point;
};

/** Enumerates every point at which `build()`'s adversary can act. Returns how many there were. */
export const interleave = (build: () => Interleaving): number => {
  for (let at = 0; ; at += 1) {
    const about = build();
    const points = runOnce(about, at);
    if (at >= points) {
      assert(at > 0, "the victim has no point at which somebody else could act");
      return at;
    }
    assert.equal(about.hypervisor.locks.heldCount, 0, `point ${at}: a lock is still held`);
    assert.deepEqual(audit(about.hypervisor), [], `point ${at}`);
    about.verify?.();
  }
};

/** What one run under FAULT is made of. */
export interface Faulty {
  readonly hypervisor: Hypervisor;
  readonly mmu: FakeMmu;
  readonly operation: () => void;
  readonly verify?: (failedCall: number) => void;
}

/**
 * Lets the first, second ... call that `build()`'s operation makes of the page table fail, a new world for each. Returns
 * how many calls there were.
 */
export const failEach = (build: () => Faulty): number => {
  for (let call = 1; ; call += 1) {
    const about = build();
    const before = about.mmu.calls.length;
    about.mmu.failAt(call);
    about.operation();
    about.mmu.failAt(0);
    const made = about.mmu.calls.length - before;
    if (made < call) {
      assert(call > 1, "the operation makes no call that could fail");
      return call - 1;
    }
    assert.equal(about.hypervisor.locks.heldCount, 0, `call ${call}: a lock is still held`);
    assert.deepEqual(audit(about.hypervisor), [], `call ${call}`);
    about.verify?.(call);
  }
};

/** A seeded random number below `bound`: xorshift, the same everywhere. */
export const randomFrom = (seed: number): ((bound: number) => number) => {
  let state = seed >>> 0 || 1;
  return (bound) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % bound;
  };
};
