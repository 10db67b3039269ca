import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { FakeRingPage } from "../src/index.ts";
import { addGuest, OK, setUp } from "./kit.ts";

describe("nodes", () => {
  it("WRITE makes missing parents, and READ gives the value without a terminator", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.write("/a/b/c", "value"), OK);
    assert.equal(dom0.read("/a/b/c"), "value");
    assert.equal(dom0.read("/a/b"), "");
    assert.equal(dom0.list("/a"), "b");
  });

  it("a value may hold any bytes, also zeros", () => {
    const { dom0 } = setUp();
    const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
    assert.equal(dom0.ask(abi.XS_WRITE, Uint8Array.from([...Buffer.from("/bytes\0"), ...bytes])), OK);
    assert.equal(dom0.read("/bytes"), Buffer.from(bytes).toString("latin1"));
  });

  it("MKDIR of a node that exists leaves its value", () => {
    const { dom0 } = setUp();
    dom0.write("/a", "kept");
    assert.equal(dom0.mkdir("/a"), OK);
    assert.equal(dom0.read("/a"), "kept");
  });

  it("RM removes all below; of a missing node it succeeds if the parent exists", () => {
    const { dom0 } = setUp();
    dom0.write("/a/b/c", "1");
    assert.equal(dom0.rm("/a/b"), OK);
    assert.equal(dom0.read("/a/b/c"), "!ENOENT");
    assert.equal(dom0.rm("/a/b"), OK);
    assert.equal(dom0.rm("/a/b/c"), "!ENOENT");
    assert.equal(dom0.list("/a"), "");
  });

  it("RM of the root is refused", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.rm("/"), "!EINVAL");
    assert.equal(dom0.list("/"), "local tool");
  });

  it("relative paths begin in the domain's home", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.write("data/x", "1"), OK);
    assert.equal(dom0.read("/local/domain/7/data/x"), "1");
    assert.equal(guest.ask(abi.XS_GET_DOMAIN_PATH, ["9"]), "/local/domain/9\0");
  });

  it("DIRECTORY_PART gives whole names from an offset, a generation, and an empty name at the end", () => {
    const { dom0 } = setUp();
    const names = Array.from({ length: 600 }, (_, index) => `name-${String(index).padStart(4, "0")}`);
    for (const name of names) dom0.mkdir(`/big/${name}`);
    assert.equal(dom0.list("/big"), "!E2BIG");
    const found: string[] = [];
    const generations = new Set<string>();
    for (let offset = 0; ;) {
      const [generation, ...part] = dom0
        .ask(abi.XS_DIRECTORY_PART, ["/big", String(offset)])
        .slice(0, -1)
        .split("\0");
      generations.add(generation!);
      const names = part.filter((name) => name !== "");
      found.push(...names);
      offset += names.join("").length + names.length;
      if (part.at(-1) === "") break;
    }
    assert.deepEqual(found, names);
    assert.equal(generations.size, 1);
    dom0.mkdir("/big/zzz");
    const [changed] = dom0.ask(abi.XS_DIRECTORY_PART, ["/big", "0"]).split("\0");
    assert.ok(!generations.has(changed!));
  });

  it("a request in an unknown transaction, and an unknown type, are refused", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.read("/", 99), "!ENOENT");
    assert.equal(dom0.ask(20, [""]), "!ENOSYS");
    assert.equal(dom0.ask(abi.XS_INVALID, []), "!ENOSYS");
    assert.equal(dom0.read("/"), "");
  });
});

describe("permissions", () => {
  it("a new node copies its parent's list; an unprivileged creator owns it", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    addGuest(server, dom0, 8);
    dom0.mkdir("/shared");
    dom0.chmod("/shared", "n0 b7 r8");
    assert.equal(guest.mkdir("/shared/mine"), OK);
    assert.equal(dom0.permissions("/shared/mine"), "n7 b7 r8");
  });

  it("a privileged creator leaves the parent's owner", () => {
    const { server, dom0 } = setUp();
    addGuest(server, dom0, 7);
    dom0.write("/local/domain/7/by-dom0", "1");
    assert.equal(dom0.permissions("/local/domain/7/by-dom0"), "n7");
  });

  it("letters: n none, r read, w write, b both, for whom the list names; the first entry speaks of all others", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const other = addGuest(server, dom0, 8);
    dom0.write("/node", "value");
    const may = (permissions: string): string => {
      assert.equal(dom0.chmod("/node", permissions), OK);
      dom0.write("/node", "value");
      return [guest.read("/node") === "value" ? "r" : "-", guest.write("/node", "x") === OK ? "w" : "-"].join("");
    };
    assert.equal(may("n0 n7"), "--");
    assert.equal(may("n0 r7"), "r-");
    assert.equal(may("n0 w7"), "-w");
    assert.equal(may("n0 b7"), "rw");
    assert.equal(may("b0 n7"), "--");
    assert.equal(may("b0"), "rw");
    assert.equal(may("n7"), "rw");
    assert.equal(other.read("/node"), "!EACCES");
  });

  it("only an owner sets permissions", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    dom0.write("/node", "1");
    dom0.chmod("/node", "b0");
    assert.equal(guest.chmod("/node", "b0 b7"), "!EACCES");
    guest.write("mine", "1");
    assert.equal(guest.chmod("mine", "r7"), OK);
    assert.equal(guest.permissions("mine"), "r7");
  });

  it("whether a node is missing is told only to those who may read the nearest that is there", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.read("missing"), "!ENOENT");
    assert.equal(guest.read("/missing"), "!EACCES");
  });

  it("SET_TARGET gives a domain the rights of another", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const model = addGuest(server, dom0, 8);
    guest.write("data", "1");
    assert.equal(model.read("/local/domain/7/data"), "!EACCES");
    assert.equal(model.ask(abi.XS_SET_TARGET, ["8", "7"]), "!EACCES");
    assert.equal(dom0.ask(abi.XS_SET_TARGET, ["8", "7"]), OK);
    assert.equal(model.read("/local/domain/7/data"), "1");
    server.releaseDomain(7);
    assert.equal(addGuest(server, dom0, 7).write("data", "2"), OK);
    assert.equal(model.read("/local/domain/7/data"), "!EACCES");
  });

  it("malformed permissions are refused", () => {
    const { dom0 } = setUp();
    dom0.write("/node", "1");
    for (const wrong of ["", "x0", "r", "r-1", "r99999", "r0x", "R0", "r0 "]) {
      assert.equal(dom0.chmod("/node", wrong), "!EINVAL", wrong);
    }
    assert.equal(dom0.chmod("/node", "r0"), OK);
  });
});

describe("domains", () => {
  it("what only the control domain may ask is refused to guests", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    const requests: [number, string[]][] = [
      [abi.XS_CONTROL, ["help"]],
      [abi.XS_INTRODUCE, ["8", "1", "1"]],
      [abi.XS_RELEASE, ["8"]],
      [abi.XS_RESUME, ["7"]],
      [abi.XS_SET_TARGET, ["7", "8"]],
      [abi.XS_IS_DOMAIN_INTRODUCED, ["7"]],
      [abi.XS_SET_QUOTA, ["nodes", "5000"]],
      [abi.XS_SET_FEATURE, ["7", "0"]],
      [abi.XS_GET_FEATURE, ["0"]],
      [abi.XS_GET_QUOTA, ["0", "nodes"]],
    ];
    for (const [type, payload] of requests) assert.equal(guest.ask(type, payload), "!EACCES", String(type));
    assert.equal(dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, ["7"]), "T\0");
    assert.equal(dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, ["8"]), "F\0");
  });

  it("INTRODUCE reaches the ring page through whoever embeds the daemon, and RELEASE ends the connection", () => {
    const asked: number[][] = [];
    const { dom0 } = setUp({
      ringOf: (domid, gfn, port) => {
        asked.push([domid, gfn, port]);
        return gfn === 4 ? new FakeRingPage() : undefined;
      },
    });
    const introduced = (): string => dom0.ask(abi.XS_IS_DOMAIN_INTRODUCED, ["9"]);
    assert.equal(dom0.ask(abi.XS_INTRODUCE, ["9", "3", "2"]), "!EINVAL");
    assert.equal(introduced(), "F\0");
    assert.equal(dom0.ask(abi.XS_INTRODUCE, ["9", "4", "2"]), OK);
    assert.equal(introduced(), "T\0");
    assert.equal(dom0.ask(abi.XS_RELEASE, ["9"]), OK);
    assert.equal(dom0.ask(abi.XS_RELEASE, ["9"]), "!ENOENT");
    assert.equal(introduced(), "F\0");
    assert.deepEqual(asked, [
      [9, 3, 2],
      [9, 4, 2],
    ]);
    assert.equal(setUp().dom0.ask(abi.XS_INTRODUCE, ["9", "1", "2"]), "!ENOSYS");
  });

  it("quotas and features can be read by guests and set by the control domain", () => {
    const { server, dom0 } = setUp();
    const guest = addGuest(server, dom0, 7);
    assert.equal(guest.ask(abi.XS_GET_QUOTA, ["nodes"]), "1000\0");
    assert.equal(dom0.ask(abi.XS_SET_QUOTA, ["7", "nodes", "3"]), OK);
    assert.equal(dom0.ask(abi.XS_GET_QUOTA, ["7", "nodes"]), "3\0");
    assert.equal(guest.ask(abi.XS_GET_FEATURE, []), "7\0");
    assert.equal(dom0.ask(abi.XS_SET_FEATURE, ["7", "3"]), "!EBUSY");
    server.createDomain(8);
    assert.equal(dom0.ask(abi.XS_SET_FEATURE, ["8", "8"]), "!EINVAL");
    assert.equal(dom0.ask(abi.XS_SET_FEATURE, ["8", "3"]), OK);
    assert.equal(addGuest(server, dom0, 8).ask(abi.XS_GET_FEATURE, []), "3\0");
    assert.ok(dom0.ask(abi.XS_GET_QUOTA, []).startsWith("nodes watches"));
    assert.equal(dom0.ask(abi.XS_GET_QUOTA, ["nothing"]), "!EINVAL");
  });

  it("CONTROL check recounts everything", () => {
    const { dom0 } = setUp();
    assert.equal(dom0.ask(abi.XS_CONTROL, ["check"]), OK);
    assert.equal(dom0.ask(abi.XS_CONTROL, ["nothing"]), "!ENOSYS");
    assert.match(dom0.ask(abi.XS_CONTROL, ["memreport"]), /^domain 0 /);
  });
});
