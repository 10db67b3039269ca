import assert from "node:assert/strict";
import { constants } from "node:os";
import { describe, it } from "node:test";
import { errnos, wasiErrno } from "../src/wasi/errno.ts";
import * as layouts from "../src/wasi/layouts.ts";
import { ALL_RIGHTS, rightsOf } from "../src/wasi/rights.ts";
import { WASI_MODULES, wasiSignatures } from "../src/wasi/signatures.ts";
import { TestGuest } from "./wasi-guest.ts";

describe("WASI: functions", () => {
  it("preview1 has 46 functions, wasi_unstable all of them but sock_accept", () => {
    const names = wasiSignatures("wasi_snapshot_preview1").map(({ name }) => name);
    assert.equal(names.length, 46);
    const unstable = wasiSignatures("wasi_unstable").map(({ name }) => name);
    assert.deepEqual(
      names.filter((name) => !unstable.includes(name)),
      ["sock_accept"],
    );
  });

  it("the signatures are those of the specification", () => {
    const signature = (wanted: string): string => {
      const found = wasiSignatures("wasi_snapshot_preview1").find(({ name }) => name === wanted);
      assert(found !== undefined);
      return `(${found.params.join(" ")}) -> (${found.results.join(" ")})`;
    };
    assert.equal(signature("path_open"), "(i32 i32 i32 i32 i32 i64 i64 i32 i32) -> (i32)");
    assert.equal(signature("fd_seek"), "(i32 i64 i32 i32) -> (i32)");
    assert.equal(signature("sched_yield"), "() -> (i32)");
    assert.equal(signature("proc_exit"), "(i32) -> ()");
  });

  it("an import object has functions only and no prototype", () => {
    for (const module of WASI_MODULES) {
      const { imports } = new TestGuest({ module });
      assert.equal(Object.getPrototypeOf(imports), null);
      assert.deepEqual(
        Object.keys(imports),
        wasiSignatures(module).map(({ name }) => name),
      );
      for (const value of Object.values(imports)) assert.equal(typeof value, "function");
    }
  });

  it("the functions of sockets answer ENOTSUP", () => {
    const guest = new TestGuest();
    assert.equal(guest.call("sock_accept", 0, 0, 0), "NOTSUP");
    assert.equal(guest.call("sock_recv", 0, 0, 0, 0, 0, 0), "NOTSUP");
    assert.equal(guest.call("sock_send", 0, 0, 0, 0, 0), "NOTSUP");
    assert.equal(guest.call("sock_shutdown", 0, 0), "NOTSUP");
  });
});

describe("WASI: errors", () => {
  it("the numbers run from 0 to 76 without a gap", () => {
    assert.deepEqual(
      Object.values(errnos).map(([wasi]) => wasi),
      Array.from({ length: 77 }, (_, index) => index),
    );
  });

  it("every error with the name of a Linux error has its number", () => {
    const linux: Readonly<Record<string, number>> = constants.errno;
    for (const [name, [, number]] of Object.entries(errnos)) {
      const known = linux[name === "TOOBIG" ? "E2BIG" : `E${name}`];
      if (known !== undefined) assert.equal(number, known, name);
    }
  });

  it("a Linux error without a counterpart is EIO, a success is 0", () => {
    assert.equal(wasiErrno(-133), errnos.IO[0]);
    assert.equal(wasiErrno(-100_000), errnos.IO[0]);
    assert.equal(wasiErrno(7), 0);
    assert.equal(wasiErrno(-errnos.NOTCAPABLE[1]), 76);
  });
});

describe("WASI: layouts", () => {
  it("structures have the offsets of the specification", () => {
    const { Fdstat, Filestat, Dirent, Prestat, Event, ClockSubscription } = layouts;
    assert.deepEqual([Fdstat.fs_flags.offset, Fdstat.fs_rights_base.offset, Fdstat.sizeBytes], [2, 8, 24]);
    assert.deepEqual([Filestat.nlink.offset, Filestat.size.offset, Filestat.ctim.offset], [24, 32, 56]);
    assert.deepEqual([Dirent.d_namlen.offset, Dirent.d_type.offset], [16, 20]);
    assert.equal(Prestat.pr_name_len.offset, 4);
    assert.deepEqual([Event.error.offset, Event.type.offset, Event.nbytes.offset, Event.flags.offset], [8, 10, 16, 24]);
    assert.deepEqual([ClockSubscription.id.offset, ClockSubscription.timeout.offset], [16, 24]);
  });

  it("wasi_unstable has a short link count and an identifier before the clock", () => {
    const { UnstableFilestat, UnstableClockSubscription } = layouts;
    assert.deepEqual([UnstableFilestat.nlink.offset, UnstableFilestat.size.offset], [20, 24]);
    assert.deepEqual([UnstableClockSubscription.id.offset, UnstableClockSubscription.timeout.offset], [24, 32]);
  });

  it("rights without a meaning are left out of a set", () => {
    assert.equal(rightsOf(-1n), ALL_RIGHTS);
    assert.equal(rightsOf(2n ** 63n), 0);
    assert.equal(ALL_RIGHTS, 2 ** 30 - 1);
  });
});
