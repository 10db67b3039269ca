import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { describe, it } from "node:test";
import { RANDOM_BYTES_MAX } from "../src/wasi/environment.ts";
import { Fdstat, Filetype, Oflag, UnstableFilestat } from "../src/wasi/layouts.ts";
import { Right } from "../src/wasi/rights.ts";
import { at, temporaryDirectory, TestGuest } from "./wasi-guest.ts";

/** The strings that `name`_get stores, by following the pointers. */
const strings = (guest: TestGuest, name: "args" | "environ"): string[] => {
  assert.equal(guest.call(`${name}_sizes_get`, at.result, at.result + 4), "SUCCESS");
  const [count, sizeBytes] = [guest.result(), guest.memory.view.getUint32(at.result + 4, true)];
  guest.memory.bytes.fill(0xff, at.buffer, at.buffer + sizeBytes + 8);
  assert.equal(guest.call(`${name}_get`, at.path, at.buffer), "SUCCESS");
  assert.equal(guest.memory.bytes[at.buffer + sizeBytes], 0xff, "nothing is written behind the text");
  return Array.from({ length: count }, (_, index) => {
    const from = guest.memory.view.getUint32(at.path + index * 4, true);
    return guest.text(from, guest.memory.bytes.indexOf(0, from) - from);
  });
};

describe("WASI: arguments and environment", () => {
  it("arrive with pointers and terminating zeros", () => {
    const given = ["program", "", "zwei", "três"];
    const guest = new TestGuest({ arguments: given, environment: ["A=1", "B="] });
    assert.deepEqual(strings(guest, "args"), given);
    assert.deepEqual(strings(guest, "environ"), ["A=1", "B="]);
  });

  it("may be empty", () => {
    const guest = new TestGuest();
    assert.deepEqual([strings(guest, "args"), strings(guest, "environ")], [[], []]);
  });

  it("W01: with a bad address nothing is written", () => {
    const guest = new TestGuest({ arguments: ["a", "b"] });
    const before = guest.memory.bytes.slice();
    assert.equal(guest.call("args_get", 0xffff_fffc, at.buffer), "FAULT");
    assert.equal(guest.call("args_get", at.path, 0xffff_fffe), "FAULT");
    assert.deepEqual(guest.memory.bytes, before);
  });
});

describe("WASI: clocks", () => {
  it("tell real time, monotonic time and processor time", () => {
    const guest = new TestGuest();
    const times = [0, 1, 2, 3].map((id) => {
      assert.equal(guest.call("clock_time_get", id, 0n, at.result), "SUCCESS");
      return guest.wideResult();
    });
    assert.deepEqual(times, [guest.nowNs + 1_700_000_000_000_000_000n, guest.nowNs, 3_000n, 2_000n]);
  });

  it("have a resolution above zero", () => {
    const guest = new TestGuest();
    for (const id of [0, 1, 2, 3]) {
      assert.equal(guest.call("clock_res_get", id, at.result), "SUCCESS");
      assert(guest.wideResult() > 0n);
    }
  });

  it("other than these four are EINVAL", () => {
    const guest = new TestGuest();
    for (const id of [4, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(guest.call("clock_time_get", id, 0n, at.result), "INVAL");
      assert.equal(guest.call("clock_res_get", id, at.result), "INVAL");
    }
  });
});

describe("WASI: random bytes", () => {
  it("fill exactly what was asked for, also across the bounce buffer", () => {
    const guest = new TestGuest();
    const length = (1 << 20) + 100;
    assert.equal(guest.call("random_get", at.buffer, length), "SUCCESS");
    assert.deepEqual([guest.memory.bytes[at.buffer - 1], guest.memory.bytes[at.buffer + length]], [0, 0]);
    assert(guest.memory.bytes.subarray(at.buffer, at.buffer + length).every((byte) => byte === 0x5a));
  });

  it("W13: more than the limit is EINVAL and writes nothing", () => {
    const guest = new TestGuest();
    for (const length of [RANDOM_BYTES_MAX + 1, 2 ** 31, 2 ** 32 - 1]) {
      assert.equal(guest.call("random_get", at.buffer, length), "INVAL");
    }
    assert(guest.memory.bytes.every((byte) => byte === 0));
    assert.equal(guest.call("random_get", at.buffer, 0), "SUCCESS");
  });
});

describe("WASI: the program", () => {
  it("ends with proc_exit and its code", () => {
    const guest = new TestGuest();
    assert.throws(() => guest.call("proc_exit", 0xffff_fffe));
    assert.equal(guest.exitCode, 0xffff_fffe);
  });

  it("gets no signals: proc_raise is ENOSYS", () => {
    assert.equal(new TestGuest().call("proc_raise", 6), "NOSYS");
  });

  it("yields by sleeping not at all", () => {
    const guest = new TestGuest();
    let yielded = false;
    guest.onSleep = (deadlineNs) => (yielded = deadlineNs === 0);
    assert.equal(guest.call("sched_yield"), "SUCCESS");
    assert(yielded);
  });

  it("recognises a terminal: a character device without the right to seek", () => {
    const guest = new TestGuest();
    guest.call("fd_fdstat_get", 1, at.buffer);
    assert.equal(Fdstat.fs_filetype.get(guest.memory.view, at.buffer), Filetype.UNKNOWN);
    assert.equal(Fdstat.fs_rights_base.get(guest.memory.view, at.buffer) & (Right.FD_SEEK | Right.FD_TELL), 0);
  });
});

describe("WASI: wasi_unstable", () => {
  it("counts fd_seek's whence from the present offset, the end and the start", () => {
    using directory = temporaryDirectory();
    writeFileSync(join(directory.path, "file"), "0123456789");
    const guest = new TestGuest({ module: "wasi_unstable", directories: { "/": directory.path } });
    const fd = guest.open("file");
    const seek = (delta: bigint, whence: number): bigint => {
      assert.equal(guest.call("fd_seek", fd, delta, whence, at.result), "SUCCESS");
      return guest.wideResult();
    };
    assert.deepEqual([seek(4n, 2), seek(1n, 0), seek(-1n, 1)], [4n, 5n, 9n]);
    guest.descriptors.closeAll();
  });

  it("has a filestat of 56 bytes with a short link count", () => {
    using directory = temporaryDirectory();
    const guest = new TestGuest({ module: "wasi_unstable", directories: { "/": directory.path } });
    const fd = guest.open("file", { oflags: Oflag.CREAT });
    guest.write(fd, "12345");
    guest.memory.bytes.fill(0xff, at.buffer, at.buffer + 64);
    assert.equal(guest.call("fd_filestat_get", fd, at.buffer), "SUCCESS");
    assert.equal(UnstableFilestat.size.get(guest.memory.view, at.buffer), 5n);
    assert.equal(UnstableFilestat.nlink.get(guest.memory.view, at.buffer), 1);
    assert.equal(guest.memory.bytes[at.buffer + 56], 0xff);
    guest.descriptors.closeAll();
  });
});
