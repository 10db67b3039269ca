/** Which process is who: with a table of processes that the test decides. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ProcessFacts, ProcessRights, ProcessTable } from "../src/daemon/proc-files.ts";
import { parseStat, parseStatus } from "../src/daemon/proc-files.ts";
import { ProcessRegistry } from "../src/daemon/process-registry.ts";
import { KeyService } from "../src/service.ts";

type Four = readonly [number, number, number, number];
const four = (id: number): Four => [id, id, id, id];
const ALL = 2n ** 41n - 1n;

/** Processes as the kernel would tell them. */
class FakeTable implements ProcessTable {
  readonly #facts = new Map<number, ProcessFacts>();
  readonly #rights = new Map<number, ProcessRights>();

  set(
    pid: number,
    { uid = 1000, rights, ...facts }: Partial<ProcessFacts> & { uid?: number; rights?: Partial<ProcessRights> },
  ): this {
    const common = { start: "1", parent: 1, leader: pid, threads: 1, isAlive: true, isKernelThread: false, image: "a" };
    this.#facts.set(pid, { ...common, ...facts, pid });
    const capabilities = uid === 0 ? ALL : 0n;
    this.#rights.set(pid, { users: four(uid), groups: four(uid), supplementary: [], capabilities, ...rights });
    return this;
  }

  end(pid: number): void {
    this.#facts.delete(pid);
    this.#rights.delete(pid);
  }

  facts(pid: number): ProcessFacts | undefined {
    return this.#facts.get(pid);
  }

  rights(pid: number): ProcessRights | undefined {
    return this.#rights.get(pid);
  }
}

interface Scene extends Disposable {
  readonly table: FakeTable;
  readonly service: KeyService;
  readonly registry: ProcessRegistry;
  /** The record of whoever connects from this process. */
  connect(pid: number, uid?: number): ReturnType<ProcessRegistry["identify"]>;
}

const scene = (): Scene => {
  const table = new FakeTable();
  const service = new KeyService();
  const registry = new ProcessRegistry(service, table);
  return {
    table,
    service,
    registry,
    connect: (pid, uid = 1000) => registry.identify({ pid, uid, gid: uid }),
    [Symbol.dispose]: () => {
      registry.close();
      service.close();
    },
  };
};

describe("a process that connects", () => {
  it("is the same as before while its start is the same, and another when it is not", () => {
    using here = scene();
    here.table.set(10, {});
    const first = here.connect(10)!;
    here.service.joinSession(first.process, null);
    assert.equal(here.connect(10)!.process, first.process);
    here.table.set(10, { start: "2" });
    const second = here.connect(10)!;
    assert.notEqual(second.process, first.process);
    assert.equal(second.process.session, undefined);
    assert.deepEqual(here.service.audit(), []);
  });

  it("is turned away when it cannot be seen, is of another pid namespace, or has ended", () => {
    using here = scene();
    here.table.set(11, { isAlive: false });
    assert.deepEqual([here.connect(10), here.connect(0), here.connect(11)], [undefined, undefined, undefined]);
  });

  it("has the rights of /proc when they agree with the socket: groups, saved ids, capabilities of user 0", () => {
    using here = scene();
    here.table.set(10, { uid: 0, rights: { supplementary: [4, 5], users: [1000, 0, 7, 8], capabilities: 1n << 21n } });
    const { process } = here.connect(10, 0)!;
    assert.deepEqual(process.groups, [4, 5]);
    assert.deepEqual([process.uid, process.euid, process.suid, process.fsuid], [1000, 0, 7, 8]);
    assert.deepEqual([process.sysAdmin, process.setUid], [true, false]);
  });

  it("that executed a program with more rights after it had connected has those of the socket only", () => {
    using here = scene();
    here.table.set(10, { uid: 0, rights: { users: [1000, 0, 0, 0], supplementary: [0] } });
    const { process } = here.connect(10, 1000)!;
    assert.deepEqual([process.uid, process.euid, process.suid, process.fsuid], four(1000));
    assert.deepEqual([process.groups, process.sysAdmin, process.setUid], [[], false, false]);
  });

  it("has no capabilities as another user, whatever /proc says", () => {
    using here = scene();
    here.table.set(10, { rights: { capabilities: ALL } });
    const { process } = here.connect(10)!;
    assert.deepEqual([process.sysAdmin, process.setUid], [false, false]);
  });

  it("has other rights when it connects again with others", () => {
    using here = scene();
    here.table.set(10, { uid: 0 });
    const first = here.connect(10, 0)!;
    const { process } = first;
    here.registry.disconnected(first);
    here.table.set(10, { uid: 1000 });
    assert.equal(here.connect(10, 1000)!.process, process);
    assert.deepEqual([process.uid, process.sysAdmin], [1000, false]);
  });

  it("that connects again with more rights gives none of them to the connection that is open", () => {
    using here = scene();
    here.table.set(10, {});
    const before = here.connect(10)!;
    here.service.joinSession(before.process, null);
    here.table.set(10, { uid: 0, image: "b" });
    const after = here.connect(10, 0)!;
    assert.deepEqual([before.process.uid, before.process.sysAdmin], [1000, false]);
    assert.deepEqual([after.process.uid, after.process.sysAdmin], [0, true]);
    assert.equal(after.process.session, before.process.session);
    here.registry.disconnected(before);
    assert.equal(here.connect(10, 0)!.process, after.process);
    assert.equal(here.service.statistics().processes, 1);
  });

  it("whose rights are seen by a child gives none of them to the connection that is open", () => {
    using here = scene();
    here.table.set(10, {}).set(11, { parent: 10 });
    const before = here.connect(10)!;
    const child = here.connect(11)!;
    here.table.set(10, { uid: 0, image: "b" });
    assert.equal(child.parent()?.process.uid, 0);
    assert.deepEqual([before.process.uid, before.process.sysAdmin], [1000, false]);
  });

  it("that is gone while another holds its connection: the connection goes on, and ends alone", () => {
    using here = scene();
    here.table.set(10, {});
    const old = here.connect(10)!;
    here.table.set(10, { start: "2" });
    const other = here.connect(10)!;
    assert.notEqual(other.process, old.process);
    assert.ok((here.service.getKeyringId(old.process, -4, true) as number) > 0);
    here.registry.disconnected(old);
    here.registry.disconnected(other);
    here.table.end(10);
    here.registry.sweep();
    assert.equal(here.service.statistics().processes, 0);
  });

  it("that executed another program has lost its thread and process keyrings, and kept its session", () => {
    using here = scene();
    here.table.set(10, {});
    const { process } = here.connect(10)!;
    for (const ring of [-1, -2]) here.service.getKeyringId(process, ring, true);
    here.service.joinSession(process, null);
    here.table.set(10, { image: "b" });
    here.connect(10);
    assert.deepEqual([process.thread, process.process, process.session === undefined], [undefined, undefined, false]);
  });
});

describe("a process that is met for the first time", () => {
  it("has the session of its nearest known ancestor, as it is then and not later", () => {
    using here = scene();
    here.table.set(10, {}).set(11, { parent: 10 }).set(12, { parent: 11 }).set(13, { parent: 12 });
    const outer = here.connect(10)!;
    here.service.joinSession(outer.process, null);
    const inner = here.connect(11)!;
    here.service.joinSession(inner.process, null);
    const { session } = inner.process;
    const last = here.connect(13)!;
    here.service.joinSession(inner.process, null);
    assert.equal(last.process.session, session);
    assert.notEqual(inner.process.session, session);
    assert.notEqual(outer.process.session, session);
  });

  it("keeps the session of an ancestor of another user, and its own rights", () => {
    using here = scene();
    here.table.set(10, { uid: 0 }).set(11, { uid: 1000, parent: 10 });
    const root = here.connect(10, 0)!;
    here.service.joinSession(root.process, null);
    const user = here.connect(11)!;
    assert.equal(user.process.session, root.process.session);
    assert.deepEqual([user.process.uid, user.process.sysAdmin], [1000, false]);
  });

  it("has nothing of a process whose number its parent has now", () => {
    using here = scene();
    here.table.set(10, {});
    here.service.joinSession(here.connect(10)!.process, null);
    here.table.set(10, { start: "2" }).set(11, { parent: 10 });
    assert.equal(here.connect(11)!.process.session, undefined);
  });

  it("whose parents are gone has the session of its session leader", () => {
    using here = scene();
    here.table.set(10, {}).set(12, { parent: 1, leader: 10 });
    const leader = here.connect(10)!;
    here.service.joinSession(leader.process, null);
    assert.equal(here.connect(12)!.process.session, leader.process.session);
  });

  it("does not look beyond the daemon: what it starts is told to it", () => {
    using here = scene();
    const self = process.pid;
    here.table.set(5, {}).set(self, { parent: 5 }).set(4_000_001, { parent: self, leader: 4_000_001 });
    here.service.joinSession(here.connect(5)!.process, null);
    assert.equal(here.connect(4_000_001)!.process.session, undefined);
  });

  it("below a circle of parents, which no kernel has, is met all the same", () => {
    using here = scene();
    here.table.set(10, { parent: 11 }).set(11, { parent: 10 });
    assert.ok(here.connect(10) !== undefined);
  });
});

describe("the parent of a process", () => {
  it("is the one of this moment, with its threads and rights", () => {
    using here = scene();
    here.table.set(10, { threads: 3 }).set(11, { parent: 10 });
    const parent = here.connect(11)!.parent();
    assert.deepEqual([parent?.process.pid, parent?.process.uid, parent?.threads], [10, 1000, 3]);
  });

  it("is none: init, a thread of the kernel, the daemon, one that is gone", () => {
    using here = scene();
    here.table.set(1, {}).set(2, { isKernelThread: true }).set(process.pid, {});
    const parents = [1, 2, process.pid, 99].map((parent, at) => {
      here.table.set(20 + at, { parent });
      return here.connect(20 + at)!.parent();
    });
    assert.deepEqual(parents, [undefined, undefined, undefined, undefined]);
  });
});

describe("a process that ends", () => {
  it("is let go of when nobody is connected for it, and not before", () => {
    using here = scene();
    here.table.set(10, {});
    const caller = here.connect(10)!;
    here.table.end(10);
    here.registry.sweep();
    assert.equal(here.registry.size, 1);
    here.registry.disconnected(caller);
    here.registry.sweep();
    assert.equal(here.registry.size, 0);
    assert.equal(here.service.statistics().processes, 0);
  });

  it("a zombie has ended", () => {
    using here = scene();
    here.table.set(10, {});
    here.registry.disconnected(here.connect(10)!);
    here.table.set(10, { isAlive: false });
    here.registry.sweep();
    assert.equal(here.registry.size, 0);
  });
});

describe("the files of /proc", () => {
  it("are understood with any name of a command", () => {
    const fields =
      "S 42 10 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 3 0 12345 999 1 2 3 11 22 33 0 0 0 0 0 0 0 0 17 0 0 0 0 0 0 44 55 66 77 88 99 0";
    const facts = parseStat(10, `10 (a) b) (c) ${fields}`);
    const expected = { parent: 42, leader: 7, threads: 3, start: "12345", isAlive: true, isKernelThread: false };
    const { parent, leader, threads, start, isAlive, isKernelThread } = facts!;
    assert.deepEqual({ parent, leader, threads, start, isAlive, isKernelThread }, expected);
    assert.equal(parseStat(10, "10 (x"), undefined);
  });

  it("give users, groups and capabilities", () => {
    const text = "Name:\tx\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000200080\n";
    assert.deepEqual(parseStatus(text), {
      users: [1, 2, 3, 4],
      groups: [5, 6, 7, 8],
      supplementary: [9, 10],
      capabilities: 0x200080n,
    });
    assert.equal(parseStatus("Name:\tx\n"), undefined);
  });
});
