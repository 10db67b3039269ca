/**
 * What one vCPU thread may have of the engine's own memory, in MiB.
 */

/** JavaScript heap: a guest that fills it with references ends its own thread only. */
export const HEAP_MIB_MAX = 256;
/** The part of it for young objects. */
export const YOUNG_HEAP_MIB_MAX = 16;
/** Native stack, which deep recursion of a guest uses. */
export const STACK_MIB = 4;
