/**
 * The memory that koffi makes calls in: per thread a stack of 2 MiB between two spare pages, and 1 MiB for arguments.
 * koffi 3.3.4 does not give it back when a thread ends, which costs the process three mappings for each thread that
 * there ever was; so whoever ends threads gives it back.
 *
 *     base      base + 4 KiB                         stack end
 *     ├─────────┼──────────────────────────────────────┼─────────┤
 *     │ no access│ stack, grows down                   │ spare   │
 *
 * Source: koffi 3.3.4, src/koffi/src/ffi.cc, InstanceMemory::Allocate.
 */
import assert from "node:assert/strict";
import { mappingsIn } from "./address-space.ts";
import { lazily } from "./lazily.ts";
import { bind, koffi, NativeBuffer } from "./libc.ts";
import { PROT_NONE, PROT_READ_WRITE, unmap } from "./mapping.ts";
import { PAGE_BYTES } from "./platform.ts";

/** What koffi allocated for one thread: addresses and lengths in bytes. */
export interface ThreadMemory {
  readonly stackAddress: number;
  readonly stackBytes: number;
  readonly heapAddress: number;
  readonly heapBytes: number;
}

/** Where getcontext(3) stores the stack pointer in a ucontext_t of glibc. */
const stackPointerOffsets: Readonly<Record<string, number>> = { x64: 160, arm64: 432 };
const CONTEXT_BYTES = 8192;

const getcontext = bind("int getcontext(uintptr_t)");
/** A string argument is copied to the beginning of koffi's memory for arguments; strchr tells where that is. */
const strchr = lazily((): ((text: string, character: number) => number | bigint) =>
  koffi().load(null).func("uintptr_t strchr(const char *, int)"),
);

/**
 * The calling thread's memory for calls, to be given to {@link releaseThreadMemory} once the thread has ended. Undefined
 * when it does not look as expected; with `isChecked` false the looking is skipped, which is right for further threads
 * of a process in which one was as expected.
 */
export const threadMemory = (isChecked: boolean): ThreadMemory | undefined => {
  const offset = stackPointerOffsets[process.arch];
  if (offset === undefined) return undefined;
  try {
    const found = locate(offset);
    return !isChecked || looksRight(found) ? found : undefined;
  } catch {
    // A C library without getcontext (musl): the memory stays with the process.
    return undefined;
  }
};

/** Gives back the memory of a thread that no longer exists. */
export const releaseThreadMemory = (memory: ThreadMemory): void => {
  // SAFETY: the mappings belong to an ended thread; nobody else knows their addresses, and koffi has forgotten them.
  unmap(memory.stackAddress, memory.stackBytes);
  unmap(memory.heapAddress, memory.heapBytes);
};

const locate = (stackPointerOffset: number): ThreadMemory => {
  const context = new NativeBuffer(CONTEXT_BYTES);
  // SAFETY: the buffer holds more than a ucontext_t takes.
  getcontext()(context.address);
  const stackPointer = Number(context.view.getBigUint64(stackPointerOffset, true));
  const { sync_stack_size: stackBytes, sync_heap_size: heapBytes } = koffi().config();
  assert(stackBytes !== undefined && heapBytes !== undefined);
  const stackEnd = Math.ceil(stackPointer / PAGE_BYTES) * PAGE_BYTES;
  // SAFETY: the string is koffi's own copy, terminated by a zero.
  const heapAddress = Number(strchr()("x", 0x78));
  return {
    stackAddress: stackEnd - stackBytes - PAGE_BYTES,
    stackBytes: stackBytes + 2 * PAGE_BYTES,
    heapAddress: Math.floor(heapAddress / PAGE_BYTES) * PAGE_BYTES,
    heapBytes,
  };
};

const looksRight = ({ stackAddress, stackBytes, heapAddress, heapBytes }: ThreadMemory): boolean => {
  const [guard, stack, ...more] = mappingsIn(stackAddress, stackAddress + stackBytes);
  const isStack =
    more.length === 0 &&
    guard?.startAddress === stackAddress &&
    guard.endAddress === stackAddress + PAGE_BYTES &&
    guard.protection === PROT_NONE &&
    stack?.protection === PROT_READ_WRITE;
  const [heap, ...rest] = mappingsIn(heapAddress, heapAddress + heapBytes);
  const isHeap =
    rest.length === 0 &&
    heap !== undefined &&
    heap.protection === PROT_READ_WRITE &&
    heap.startAddress <= heapAddress &&
    heap.endAddress >= heapAddress + heapBytes;
  return isStack && isHeap;
};
