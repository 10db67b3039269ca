/**
 * poll_oneoff: waiting for times and for descriptors. The subscriptions are read once. Between looks the vCPU sleeps
 * outside the gate, so it can be stopped at any time.
 */
import { Readiness, seek, statusOf, Whence } from "@xenolith/sys";
import {
  BOUNCE_BYTES,
  type Session,
  STREAM_HANGUP,
  STREAM_READABLE,
  STREAM_WRITABLE,
  SUBSCRIPTION_COUNT_MAX,
} from "./context.ts";
import { DescriptorKind } from "./descriptor-table.ts";
import { useDescriptor } from "./descriptor-use.ts";
import { refuse, wasiErrno } from "./errno.ts";
import {
  ClockId,
  ClockSubscription,
  DescriptorSubscription,
  Event,
  EVENT_FD_READWRITE_HANGUP,
  EventType,
  SUBSCRIPTION_CLOCK_ABSTIME,
  UnstableClockSubscription,
} from "./layouts.ts";
import { Right } from "./rights.ts";

/** Where the events are put together in the bounce buffer; the subscriptions are before it. */
const EVENTS_AT = BOUNCE_BYTES / 2;
/** A subscription that is not for a time. */
const NO_DEADLINE = Infinity;
const SLICE_NS_MIN = 0.25e6;
const SLICE_NS_MAX = 16e6;

export const pollOneoff = (
  session: Session,
  subscriptions: number,
  events: number,
  count: number,
  result: number,
): number => {
  const { memory, bounce } = session;
  if (count === 0 || count > SUBSCRIPTION_COUNT_MAX) return refuse("INVAL");
  const wanted = bounce.bytes.subarray(0, count * clockLayout(session).sizeBytes);
  const refused = memory.copyFromGuest(subscriptions, wanted);
  if (refused < 0) return refused;
  const isAccessible = memory.accessible(events, count * Event.sizeBytes, true) && memory.accessible(result, 4, true);
  if (!isAccessible) return refuse("FAULT");
  if (!noteDeadlines(session, count)) return refuse("INVAL");
  const happened = waitForEvents(session, count);
  const written = bounce.bytes.subarray(EVENTS_AT, EVENTS_AT + happened * Event.sizeBytes);
  const copied = memory.copyToGuest(events, written);
  if (copied < 0) return copied;
  return memory.writeU32(result, happened) ? 0 : refuse("FAULT");
};

const clockLayout = ({ module }: Session): typeof ClockSubscription | typeof UnstableClockSubscription =>
  module === "wasi_unstable" ? UnstableClockSubscription : ClockSubscription;

/** Looks and sleeps in turn; returns how many events there are, at least one. */
const waitForEvents = (session: Session, count: number): number => {
  const { context } = session;
  for (let sliceNs = SLICE_NS_MIN; ; sliceNs = Math.min(sliceNs * 2, SLICE_NS_MAX)) {
    const now = Number(context.clock.monotonic());
    const happened = collectEvents(session, count, now);
    if (happened > 0) return happened;
    context.sleepUntil(
      Math.min(nextDeadline(session, count), waitsForDescriptor(session, count) ? now + sliceNs : Infinity),
    );
  }
};

/**
 * Turns every time subscribed to into a moment of the monotonic clock. False when a subscription is of no known type.
 * Clocks that cannot be waited for are left to `clockEvent`.
 */
const noteDeadlines = (session: Session, count: number): boolean => {
  const { bounce, deadlines, context } = session;
  const layout = clockLayout(session);
  const now = context.clock.monotonic();
  for (let index = 0; index < count; index += 1) {
    const at = index * layout.sizeBytes;
    const tag = layout.tag.get(bounce.view, at);
    if (tag > EventType.FD_WRITE) return false;
    deadlines[index] = tag === EventType.CLOCK ? deadlineOf(session, at, now) : NO_DEADLINE;
  }
  return true;
};

const deadlineOf = (session: Session, at: number, now: bigint): number => {
  const { bounce, context } = session;
  const layout = clockLayout(session);
  const timeout = layout.timeout.get(bounce.view, at);
  const isAbsolute = (layout.flags.get(bounce.view, at) & SUBSCRIPTION_CLOCK_ABSTIME) !== 0;
  if (!isAbsolute) return Number(now + timeout);
  const isRealtime = layout.id.get(bounce.view, at) === ClockId.REALTIME;
  return Number(isRealtime ? timeout - context.clock.realtime() + now : timeout);
};

const nextDeadline = ({ deadlines }: Session, count: number): number => {
  let next = NO_DEADLINE;
  for (let index = 0; index < count; index += 1) next = Math.min(next, deadlines[index]!);
  return next;
};

const waitsForDescriptor = (session: Session, count: number): boolean => {
  const layout = clockLayout(session);
  for (let index = 0; index < count; index += 1) {
    if (layout.tag.get(session.bounce.view, index * layout.sizeBytes) !== EventType.CLOCK) return true;
  }
  return false;
};

/** Writes an event for each subscription that is due, in their order; returns how many. */
const collectEvents = (session: Session, count: number, now: number): number => {
  const layout = clockLayout(session);
  let happened = 0;
  for (let index = 0; index < count; index += 1) {
    const at = index * layout.sizeBytes;
    const event = EVENTS_AT + happened * Event.sizeBytes;
    const isClock = layout.tag.get(session.bounce.view, at) === EventType.CLOCK;
    const isDue = isClock
      ? clockEvent(session, at, event, now >= session.deadlines[index]!)
      : descriptorEvent(session, at, event);
    if (isDue) happened += 1;
  }
  return happened;
};

/** Starts the event for the subscription at `at`. */
const begin = ({ bounce }: Session, at: number, event: number, error: number): void => {
  const { view, bytes } = bounce;
  bytes.fill(0, event, event + Event.sizeBytes);
  Event.userdata.set(view, event, DescriptorSubscription.userdata.get(view, at));
  Event.type.set(view, event, DescriptorSubscription.tag.get(view, at));
  Event.error.set(view, event, error);
};

const clockEvent = (session: Session, at: number, event: number, isOver: boolean): boolean => {
  const id = clockLayout(session).id.get(session.bounce.view, at);
  const isTime = id === ClockId.REALTIME || id === ClockId.MONOTONIC;
  if (isTime && !isOver) return false;
  const isCpuTime = id === ClockId.PROCESS_CPUTIME || id === ClockId.THREAD_CPUTIME;
  begin(session, at, event, isTime ? 0 : wasiErrno(isCpuTime ? refuse("NOTSUP") : refuse("INVAL")));
  return true;
};

const descriptorEvent = (session: Session, at: number, event: number): boolean => {
  const { bounce } = session;
  const isRead = DescriptorSubscription.tag.get(bounce.view, at) === EventType.FD_READ;
  const fd = DescriptorSubscription.file_descriptor.get(bounce.view, at);
  const row = useDescriptor(session, fd, Right.POLL_FD_READWRITE | (isRead ? Right.FD_READ : Right.FD_WRITE));
  if (row < 0) {
    begin(session, at, event, wasiErrno(row));
    return true;
  }
  const state = readinessOf(session, row);
  const nbytes = isRead && (state & STREAM_READABLE) !== 0 ? readableBytes(session, row) : 1n;
  session.descriptors.release(row);
  const wanted = (isRead ? STREAM_READABLE : STREAM_WRITABLE) | STREAM_HANGUP;
  if ((state & wanted) === 0) return false;
  begin(session, at, event, 0);
  Event.nbytes.set(bounce.view, event, nbytes);
  if ((state & STREAM_HANGUP) !== 0) Event.flags.set(bounce.view, event, EVENT_FD_READWRITE_HANGUP);
  return true;
};

/** `STREAM_*` bits of an open file. Regular files are always ready. */
const readinessOf = ({ descriptors, context, pollSet }: Session, row: number): number => {
  const hostFd = descriptors.hostFd[row]!;
  const kind = descriptors.kind[row];
  if (kind === DescriptorKind.STDIO) return context.stdio.ready(hostFd);
  if (kind !== DescriptorKind.STREAM) return STREAM_READABLE | STREAM_WRITABLE;
  pollSet.clear();
  pollSet.add(hostFd, Readiness.READABLE | Readiness.WRITABLE);
  if (pollSet.wait(0) <= 0) return 0;
  const happened = pollSet.happened(0);
  const readable = (happened & Readiness.READABLE) === 0 ? 0 : STREAM_READABLE;
  const writable = (happened & Readiness.WRITABLE) === 0 ? 0 : STREAM_WRITABLE;
  return readable | writable | ((happened & (Readiness.HANG_UP | Readiness.ERROR)) === 0 ? 0 : STREAM_HANGUP);
};

/** Bytes up to the end of a file; 1 for a stream, of which nobody knows. */
const readableBytes = ({ descriptors }: Session, row: number): bigint => {
  if (descriptors.kind[row] !== DescriptorKind.FILE) return 1n;
  const hostFd = descriptors.hostFd[row]!;
  const status = statusOf(hostFd);
  const position = seek(hostFd, 0, Whence.CUR);
  if (typeof status === "number" || position < 0) return 0n;
  const rest = status.sizeBytes - BigInt(position);
  return rest > 0n ? rest : 0n;
};
