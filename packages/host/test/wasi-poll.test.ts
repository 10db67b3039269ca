import assert from "node:assert/strict";
import { closeSync, openSync, writeFileSync, writeSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { STREAM_WRITABLE } from "../src/wasi/context.ts";
import { errnos } from "../src/wasi/errno.ts";
import {
  ClockId,
  ClockSubscription,
  DescriptorSubscription,
  Event,
  EventType,
  SUBSCRIPTION_CLOCK_ABSTIME,
  UnstableClockSubscription,
} from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, makeFifo, temporaryDirectory, TestGuest } from "./wasi-guest.ts";

const EVENTS = 0x30000;
const MS = 1_000_000n;
const REALTIME_AHEAD_NS = 1_700_000_000_000_000_000n;

interface Happened {
  readonly userdata: bigint;
  readonly error: number;
  readonly type: number;
  readonly nbytes: bigint;
  readonly flags: number;
}

type Subscription =
  | { readonly clock: number; readonly timeout: bigint; readonly absolute?: boolean }
  | { readonly fd: number; readonly type: number };

/** Puts subscriptions into memory, with their positions + 100 as userdata. */
const subscribe = (guest: TestGuest, subscriptions: readonly Subscription[], unstable = false): void => {
  const { view } = guest.memory;
  const layout = unstable ? UnstableClockSubscription : ClockSubscription;
  for (const [index, subscription] of subscriptions.entries()) {
    const here = at.buffer + index * layout.sizeBytes;
    guest.memory.bytes.fill(0, here, here + layout.sizeBytes);
    layout.userdata.set(view, here, BigInt(100 + index));
    if ("fd" in subscription) {
      layout.tag.set(view, here, subscription.type);
      DescriptorSubscription.file_descriptor.set(view, here, subscription.fd);
      continue;
    }
    layout.tag.set(view, here, EventType.CLOCK);
    layout.id.set(view, here, subscription.clock);
    layout.timeout.set(view, here, subscription.timeout);
    layout.flags.set(view, here, subscription.absolute === true ? SUBSCRIPTION_CLOCK_ABSTIME : 0);
  }
};

const poll = (guest: TestGuest, ...subscriptions: readonly Subscription[]): Happened[] => {
  subscribe(guest, subscriptions);
  assert.equal(guest.call("poll_oneoff", at.buffer, EVENTS, subscriptions.length, at.result), "SUCCESS");
  return events(guest);
};

const events = (guest: TestGuest): Happened[] =>
  Array.from({ length: guest.result() }, (_, index) => {
    const { view } = guest.memory;
    const event = EVENTS + index * Event.sizeBytes;
    return {
      userdata: Event.userdata.get(view, event),
      error: Event.error.get(view, event),
      type: Event.type.get(view, event),
      nbytes: Event.nbytes.get(view, event),
      flags: Event.flags.get(view, event),
    };
  });

const who = (happened: readonly Happened[]): bigint[] => happened.map(({ userdata }) => userdata);

const { MONOTONIC, REALTIME } = ClockId;
const { FD_READ, FD_WRITE } = EventType;

describe("WASI: poll_oneoff and time", () => {
  it("a relative time is slept for", () => {
    const guest = new TestGuest();
    const before = guest.nowNs;
    const happened = poll(guest, { clock: MONOTONIC, timeout: 5n * MS });
    assert.deepEqual(happened, [{ userdata: 100n, error: 0, type: EventType.CLOCK, nbytes: 0n, flags: 0 }]);
    assert.equal(guest.nowNs, before + 5n * MS);
  });

  it("an absolute time is slept until, by either clock", () => {
    const guest = new TestGuest();
    const wanted = guest.nowNs + 7n * MS;
    poll(guest, { clock: MONOTONIC, timeout: wanted, absolute: true });
    assert.equal(guest.nowNs, wanted);
    poll(guest, { clock: REALTIME, timeout: wanted + MS + REALTIME_AHEAD_NS, absolute: true });
    assert.equal(guest.nowNs, wanted + MS);
  });

  it("a time that is over is due without sleeping", () => {
    const guest = new TestGuest();
    guest.onSleep = () => assert.fail("sleeps");
    poll(guest, { clock: MONOTONIC, timeout: 0n });
    poll(guest, { clock: MONOTONIC, timeout: 1n, absolute: true });
    poll(guest, { clock: REALTIME, timeout: 1n, absolute: true });
  });

  it("of several times the earliest ends the wait, alone", () => {
    const guest = new TestGuest();
    const times = [30n, 10n, 20n].map((timeout) => ({ clock: MONOTONIC, timeout: timeout * MS }));
    assert.deepEqual(who(poll(guest, ...times)), [101n]);
  });

  it("the longest time there is waits without limit", () => {
    const guest = new TestGuest();
    let sleptUntil = 0;
    guest.onSleep = (deadlineNs) => {
      sleptUntil = deadlineNs;
      guest.nowNs = 2n ** 65n;
    };
    poll(guest, { clock: MONOTONIC, timeout: 2n ** 64n - 1n });
    assert(sleptUntil > 1e19);
  });

  it("a clock of processor time is an event with ENOTSUP, an unknown clock with EINVAL", () => {
    const guest = new TestGuest();
    const clocks = [ClockId.PROCESS_CPUTIME, ClockId.THREAD_CPUTIME, 4].map((clock) => ({ clock, timeout: MS }));
    assert.deepEqual(
      poll(guest, ...clocks).map(({ error }) => error),
      [errnos.NOTSUP[0], errnos.NOTSUP[0], errnos.INVAL[0]],
    );
  });
});

describe("WASI: poll_oneoff and descriptors", () => {
  it("output is ready to write, and input to read once something is there", () => {
    const guest = new TestGuest();
    const both = [
      { fd: 0, type: FD_READ },
      { fd: 1, type: FD_WRITE },
    ];
    assert.deepEqual(who(poll(guest, ...both)), [101n]);
    guest.stdio.input = new Uint8Array([1]);
    assert.deepEqual(who(poll(guest, ...both)), [100n, 101n]);
  });

  it("waiting for input ends when input comes, or when the time is over", () => {
    const guest = new TestGuest();
    const both = [
      { fd: 0, type: FD_READ },
      { clock: MONOTONIC, timeout: 500n * MS },
    ];
    assert.deepEqual(who(poll(guest, ...both)), [101n]);
    const before = guest.nowNs;
    guest.onSleep = () => {
      if (guest.nowNs > before + 20n * MS) guest.stdio.input = new Uint8Array([1]);
    };
    assert.deepEqual(who(poll(guest, ...both)), [100n]);
    assert(guest.nowNs < before + 100n * MS);
  });

  it("the end of input is readable, with the hang-up flag", () => {
    const guest = new TestGuest();
    guest.stdio.inputClosed = true;
    const [event] = poll(guest, { fd: 0, type: FD_READ });
    assert.deepEqual([event!.error, event!.flags], [0, 1]);
  });

  it("a regular file is always ready, and tells how much there is to read", () => {
    using directory = temporaryDirectory();
    writeFileSync(join(directory.path, "file"), "0123456789");
    const guest = new TestGuest({ directories: { "/": directory.path } });
    const fd = guest.open("file");
    guest.read(fd, 4);
    const happened = poll(guest, { fd, type: FD_READ }, { fd, type: FD_WRITE });
    assert.deepEqual(
      happened.map(({ userdata, nbytes }) => [userdata, nbytes]),
      [
        [100n, 6n],
        [101n, 1n],
      ],
    );
    guest.descriptors.closeAll();
  });

  it("a FIFO is ready when somebody wrote to it", () => {
    using directory = temporaryDirectory();
    makeFifo(join(directory.path, "fifo"));
    const guest = new TestGuest({ directories: { "/": directory.path } });
    const fd = guest.open("fifo", { base: Right.FD_READ | Right.POLL_FD_READWRITE });
    const writer = openSync(join(directory.path, "fifo"), "w");
    const both = [
      { fd, type: FD_READ },
      { clock: MONOTONIC, timeout: 10n * MS },
    ];
    assert.deepEqual(who(poll(guest, ...both)), [101n]);
    writeSync(writer, "x");
    assert.deepEqual(who(poll(guest, ...both)), [100n]);
    closeSync(writer);
    guest.descriptors.closeAll();
  });

  it("a descriptor that is closed, or lacks the right, is an event with the error", () => {
    using directory = temporaryDirectory();
    const guest = new TestGuest({ directories: { "/": directory.path } });
    const happened = poll(
      guest,
      { fd: 40, type: FD_READ },
      { fd: 0xffff_ffff, type: FD_WRITE },
      { fd: 1, type: FD_READ },
      { fd: 3, type: FD_READ },
    );
    const { BADF, NOTCAPABLE } = errnos;
    assert.deepEqual(
      happened.map(({ error }) => error),
      [BADF[0], BADF[0], NOTCAPABLE[0], NOTCAPABLE[0]],
    );
    guest.descriptors.closeAll();
  });
});

describe("WASI: poll_oneoff with bad arguments", () => {
  it("no subscription, too many, or one of an unknown type is EINVAL", () => {
    const guest = new TestGuest();
    subscribe(guest, [{ fd: 1, type: FD_WRITE }]);
    for (const count of [0, 1025, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(guest.call("poll_oneoff", at.buffer, EVENTS, count, at.result), "INVAL");
    }
    subscribe(guest, [{ fd: 1, type: 3 }]);
    assert.equal(guest.call("poll_oneoff", at.buffer, EVENTS, 1, at.result), "INVAL");
    assert.deepEqual(who(poll(guest, { fd: 1, type: FD_WRITE })), [100n]);
  });

  it("1024 subscriptions are served", () => {
    const guest = new TestGuest();
    const many = Array.from({ length: 1024 }, () => ({ fd: 1, type: FD_WRITE }));
    assert.equal(poll(guest, ...many).length, 1024);
  });

  it("events that could not be written are EFAULT before anything is waited for", () => {
    const guest = new TestGuest();
    guest.onSleep = () => assert.fail("sleeps");
    subscribe(guest, [{ clock: MONOTONIC, timeout: MS }]);
    assert.equal(guest.call("poll_oneoff", at.buffer, 0xffff_fff0, 1, at.result), "FAULT");
    assert.equal(guest.call("poll_oneoff", at.buffer, EVENTS, 1, 0xffff_fffe), "FAULT");
  });

  it("the guest's subscriptions are read once: changing them while it waits has no effect", () => {
    const guest = new TestGuest();
    guest.onSleep = () => guest.memory.bytes.fill(0xff, at.buffer, at.buffer + 4096);
    assert.deepEqual(who(poll(guest, { clock: MONOTONIC, timeout: 3n * MS })), [100n]);
  });
});

describe("WASI: poll_oneoff of wasi_unstable", () => {
  it("has its own layout of a time", () => {
    const guest = new TestGuest({ module: "wasi_unstable" });
    const before = guest.nowNs;
    subscribe(
      guest,
      [
        { clock: MONOTONIC, timeout: 4n * MS },
        { fd: 0, type: FD_READ },
      ],
      true,
    );
    assert.equal(guest.call("poll_oneoff", at.buffer, EVENTS, 2, at.result), "SUCCESS");
    assert.deepEqual(who(events(guest)), [100n]);
    assert.equal(guest.nowNs, before + 4n * MS);
    assert.equal(guest.stdio.ready(1), STREAM_WRITABLE);
  });
});
