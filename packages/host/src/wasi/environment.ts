/**
 * What a program starts with and asks the machine for: arguments, environment, clocks, random bytes, its own end.
 */
import type { Session, WasiClock } from "./context.ts";
import { refuse } from "./errno.ts";
import { storeU64 } from "./guest-numbers.ts";
import { ClockId } from "./layouts.ts";

export const argsSizesGet = (session: Session, count: number, sizeBytes: number): number =>
  storeSizes(session, session.context.arguments, count, sizeBytes);

export const argsGet = (session: Session, pointers: number, text: number): number =>
  storeStrings(session, session.context.arguments, pointers, text);

export const environSizesGet = (session: Session, count: number, sizeBytes: number): number =>
  storeSizes(session, session.context.environment, count, sizeBytes);

export const environGet = (session: Session, pointers: number, text: number): number =>
  storeStrings(session, session.context.environment, pointers, text);

/** Bytes of all strings with a zero behind each. */
const textBytes = (strings: readonly Uint8Array[]): number =>
  strings.reduce((total, string) => total + string.length + 1, 0);

const storeSizes = ({ memory }: Session, strings: readonly Uint8Array[], count: number, sizeBytes: number): number => {
  const isStored = memory.writeU32(count, strings.length) && memory.writeU32(sizeBytes, textBytes(strings));
  return isStored ? 0 : refuse("FAULT");
};

const storeStrings = ({ memory }: Session, strings: readonly Uint8Array[], pointers: number, text: number): number => {
  const texts = new Uint8Array(textBytes(strings));
  const addresses = new Uint8Array(strings.length * 4);
  const view = new DataView(addresses.buffer);
  let at = 0;
  for (const [index, string] of strings.entries()) {
    view.setUint32(index * 4, text + at, true);
    texts.set(string, at);
    at += string.length + 1;
  }
  if (!memory.accessible(pointers, addresses.length, true)) return refuse("FAULT");
  const copied = memory.copyToGuest(text, texts);
  return copied < 0 ? copied : memory.copyToGuest(pointers, addresses);
};

/** Nanoseconds between two values of a clock that can be told apart. */
const CLOCK_RESOLUTION_NS = 1000;

export const clockResGet = ({ memory }: Session, id: number, result: number): number => {
  if (id > ClockId.THREAD_CPUTIME) return refuse("INVAL");
  return storeU64(memory, result, CLOCK_RESOLUTION_NS) ? 0 : refuse("FAULT");
};

/** The precision that the guest can do with is not looked at: every clock is as precise as it gets. */
export const clockTimeGet = ({ memory, context }: Session, id: number, _precision: bigint, result: number): number => {
  const time = timeOf(context.clock, id);
  if (time === undefined) return refuse("INVAL");
  return storeU64(memory, result, time) ? 0 : refuse("FAULT");
};

const timeOf = (clock: WasiClock, id: number): bigint | undefined => {
  switch (id) {
    case ClockId.REALTIME:
      return clock.realtime();
    case ClockId.MONOTONIC:
      return clock.monotonic();
    case ClockId.PROCESS_CPUTIME:
      return clock.processCpu();
    case ClockId.THREAD_CPUTIME:
      return clock.threadCpu();
    default:
      return undefined;
  }
};

/** Most random bytes of one call; whoever needs more calls again. */
export const RANDOM_BYTES_MAX = 16 << 20;

export const randomGet = ({ memory, context, bounce }: Session, address: number, lengthBytes: number): number => {
  if (lengthBytes > RANDOM_BYTES_MAX) return refuse("INVAL");
  if (!memory.accessible(address, lengthBytes, true)) return refuse("FAULT");
  let refused = 0;
  for (let done = 0; done < lengthBytes && refused === 0; done += bounce.bytes.length) {
    const slice = bounce.bytes.subarray(0, Math.min(bounce.bytes.length, lengthBytes - done));
    context.random(slice);
    refused = memory.copyToGuest(address + done, slice);
    // These may become somebody's key.
    slice.fill(0);
  }
  return refused;
};

export const procExit = ({ context }: Session, code: number): never => context.exit(code);

/** No signal reaches a domain: the guest may end itself with proc_exit. */
export const procRaise = (): number => refuse("NOSYS");

/** Lets whoever wants to pause or stop the vCPU do so. */
export const schedYield = ({ context }: Session): number => {
  context.sleepUntil(0);
  return 0;
};

/** There is no network in a domain. */
export const noSockets = (): number => refuse("NOTSUP");
