import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import * as abi from "@xenolith/abi";
import { INTRODUCE_DOMAIN, RELEASE_DOMAIN, type XenstoreClient } from "@xenolith/xenstore";
import type { Host } from "../src/index.ts";
import { quiet, RingGuest, STORE_PAGE } from "./ring-guest.ts";
import { assertClean, eventually, guest, openHost } from "./support.ts";

const { XS_READ, XS_WRITE, XS_MKDIR, XS_SET_PERMS } = abi;
const layout = abi.xenstore_domain_interface;
const host = await openHost({ warmVcpuCount: 0 });
after(() => host.close());

const home = (domid: number): string => `/local/domain/${domid}`;

/** All paths from `path` on. */
const dump = async (store: XenstoreClient, path = "/"): Promise<string[]> => {
  const names = await store.directory(path);
  const below = await Promise.all(names.map((name) => dump(store, `${path === "/" ? "" : path}/${name}`)));
  return [path, ...below.flat()];
};

/** Ports of the control domain that are open. */
const openPorts = ({ hypervisor }: Host): number => {
  const { events } = hypervisor;
  let count = 0;
  for (let port = 1; port < events.portsPerDomain; port += 1) if (events.load(0, port) !== 0) count += 1;
  return count;
};

/** The next domain gets this number, which nobody has. */
const createAs = (on: Host, domid: number): Promise<RingGuest> => {
  on.hypervisor.domains.serial[1] = domid - 1;
  return RingGuest.create(on);
};

/** Collects the events of a path until it is closed. */
const collect = (store: XenstoreClient, path: string): { readonly seen: string[]; close(): Promise<void> } => {
  const watcher = store.watch(path);
  const seen: string[] = [];
  const reading = (async () => {
    for await (const event of watcher) seen.push(event);
  })();
  return { seen, close: () => watcher.close().then(() => reading) };
};

describe("the rings of a guest", () => {
  it("stand in HVM parameters, start_info and the grant table alike", async () => {
    const image = guest(`(module (memory (export "memory") 1)
      (func (export "xen_start") (param i32) (i32.store (i32.const 0) (local.get 0))))`);
    await using domain = await host.createDomain({ image });
    const ringGuest = new RingGuest(host, domain);
    const { hvmParams, grants, directMap } = host.hypervisor;
    const parameter = (index: number): number => Number(hvmParams.get(ringGuest.slot, index));
    await domain.start();
    await domain.exited;
    const address = new DataView(domain.read(0, 4).buffer).getUint32(0, true);
    const view = new DataView(domain.read(address, abi.start_info.sizeBytes).buffer);
    const { store_mfn, store_evtchn, console } = abi.start_info;
    assert.deepEqual(
      [store_mfn.get(view, 0), console.domU.mfn.get(view, 0)],
      [parameter(abi.HVM_PARAM_STORE_PFN), parameter(abi.HVM_PARAM_CONSOLE_PFN)],
    );
    assert.deepEqual([store_mfn.get(view, 0), console.domU.mfn.get(view, 0)], [0xf_fffa, 0xf_fffb]);
    assert.equal(store_evtchn.get(view, 0), parameter(abi.HVM_PARAM_STORE_EVTCHN));
    assert.equal(console.domU.evtchn.get(view, 0), parameter(abi.HVM_PARAM_CONSOLE_EVTCHN));
    const entries = [0, 1].map((ref) => grants.entryAddress(ringGuest.slot, ref));
    assert.deepEqual(
      entries.map((entry) => [directMap.loadU32(entry), directMap.loadU32(entry + 4)]),
      [
        [abi.GTF_permit_access, 0xf_fffb],
        [abi.GTF_permit_access, 0xf_fffa],
      ],
    );
    assertClean(host);
  });

  it("are for guests that can find them: another one needs hvm_op", async () => {
    const start = `(memory (export "memory") 1) (func (export "_start"))`;
    const without = await host.createDomain({ image: guest(`(module ${start})`) });
    const importing = `(import "xen" "hvm_op" (func (param i32 i32) (result i32)))`;
    const having = await host.createDomain({ image: guest(`(module ${importing} ${start})`) });
    assert.throws(() => without.read(STORE_PAGE, 1), { code: "GUEST_ADDRESS" });
    assert.equal(having.read(STORE_PAGE, 4096 * 2).length, 8192);
    await Promise.all([without.destroy(), having.destroy()]);
  });

  it("are refused when the control domain has no event channel left, and nothing stays behind", async () => {
    const opened: number[] = [];
    for (;;) {
      try {
        opened.push(host.events.allocateUnbound(0));
      } catch {
        break;
      }
    }
    host.events.close(opened.pop()!);
    const free = host.info().memoryFreeBytes;
    await assert.rejects(host.createDomain({ image: quiet }), { code: "DOMAIN_LIMIT", message: /two event channels/ });
    assert.equal(host.info().memoryFreeBytes, free);
    assertClean(host);
    for (const port of opened) host.events.close(port);
    await (await host.createDomain({ image: quiet })).destroy();
  });
});

describe("the home of a domain", () => {
  it("holds what a toolstack writes, for the guest to read and in four places to write", async () => {
    const store = await host.xenstore();
    const ringGuest = await RingGuest.create(host, { name: "web", memoryBytesMax: 2 ** 20 });
    const { domid } = ringGuest;
    const at = home(domid);
    const facts: Record<string, string> = {};
    for (const path of await dump(store, at)) facts[path.slice(at.length + 1)] = await store.read(path);
    assert.match(facts["vm"]!, /^\/vm\/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
    const expected = {
      domid: String(domid),
      name: "web",
      "memory/static-max": "1024",
      "memory/target": "1024",
      "store/port": String(ringGuest.port()),
      "store/ring-ref": "1",
      "console/port": String(ringGuest.port(abi.HVM_PARAM_CONSOLE_EVTCHN)),
      "console/ring-ref": "0",
      "control/shutdown": "",
      device: "",
    };
    for (const [name, value] of Object.entries(expected)) assert.equal(facts[name], value, name);
    assert.equal(await ringGuest.ask(XS_READ, "name", ""), "web");
    for (const name of ["data/x", "control/shutdown"]) assert.equal(await ringGuest.ask(XS_WRITE, name, "mine"), "OK");
    for (const name of ["name", "domid", "console/port", "store/ring-ref", "memory/target", "device/x", "x"]) {
      assert.equal(await ringGuest.ask(XS_WRITE, name, "mine"), "EACCES", name);
    }
    await ringGuest.domain.destroy();
    assert.equal(await store.readIfPresent(at), undefined);
    assert.deepEqual(await store.directory("/vm"), []);
  });

  it("is made for guests without rings too, and for those that were there before the store", async () => {
    await using own = await openHost({ warmVcpuCount: 0 });
    const image = guest(`(module (memory (export "memory") 1) (func (export "_start")))`);
    const plain = await own.createDomain({ image, name: "plain" });
    const xen = await RingGuest.create(own, { name: "xen" });
    const store = await own.xenstore();
    assert.equal(await store.read(`${home(plain.domid)}/name`), "plain");
    assert.equal(await store.read(`${home(xen.domid)}/name`), "xen");
    assert.deepEqual(await store.directory(`${home(plain.domid)}/memory`), ["static-max", "target", "videoram"]);
    assert.equal(await store.isDomainIntroduced(xen.domid), true);
    assertClean(own);
  });

  it("is there with a guest's first request, although the program never asked for the store", async () => {
    await using own = await openHost({ warmVcpuCount: 0 });
    const ringGuest = await RingGuest.create(own, { name: "first" });
    assert.equal(await ringGuest.ask(XS_READ, "name", ""), "first");
    assertClean(own);
  });
});

describe("the life of a domain in the store", () => {
  it("is told by @introduceDomain at its creation and @releaseDomain at its end, once each", async () => {
    const store = await host.xenstore();
    const introduced = collect(store, INTRODUCE_DOMAIN);
    const released = collect(store, RELEASE_DOMAIN);
    /** The counts are reached, and what had been said before the next answer changes nothing. */
    const expect = async (counts: readonly [number, number], why?: string): Promise<void> => {
      const now = (): number[] => [introduced.seen.length, released.seen.length];
      await eventually(() => now().every((count, index) => count >= counts[index]!));
      await store.read("/");
      assert.deepEqual(now(), counts, why);
    };
    await expect([1, 1]);
    const crashing = guest(
      `(module (memory (export "memory") 1) (func (export "xen_start") (param i32) (unreachable)))`,
    );
    const domain = await host.createDomain({ image: crashing });
    await expect([2, 1]);
    await domain.start();
    await domain.exited;
    await expect([2, 2], "a crash is the end");
    assert.equal(await store.read(`${home(domain.domid)}/domid`), String(domain.domid), "its home stays");
    await domain.destroy();
    await expect([2, 2], "and its destruction is not another");
    const other = await host.createDomain({ image: quiet });
    await other.destroy();
    await expect([3, 3], "the destruction of one that lives is");
    await Promise.all([introduced.close(), released.close()]);
  });

  it("leaves no node, frame, reference or channel behind", async () => {
    const store = await host.xenstore();
    const nodes = await dump(store);
    const free = host.info().memoryFreeBytes;
    const ports = openPorts(host);
    for (let cycle = 0; cycle < 20; cycle += 1) {
      const guests = await Promise.all([RingGuest.create(host), RingGuest.create(host), RingGuest.create(host)]);
      await guests[0].ask(XS_WRITE, "data/x", "1");
      await Promise.all(guests.map(({ domain }) => domain.destroy()));
    }
    assert.deepEqual(await dump(store), nodes);
    assert.equal(host.info().memoryFreeBytes, free);
    assert.equal(openPorts(host), ports);
    assertClean(host);
  });

  it("may end while the store is being started, and while a request waits", async () => {
    const own = await openHost({ warmVcpuCount: 0 });
    const guests = await Promise.all(Array.from({ length: 5 }, () => RingGuest.create(own)));
    for (const ringGuest of guests) await ringGuest.send(XS_READ, "name\0");
    await Promise.all([own.xenstore(), ...guests.slice(0, 4).map(({ domain }) => domain.destroy())]);
    const store = await own.xenstore();
    assert.deepEqual(await store.directory("/local/domain"), [String(guests[4]!.domid)]);
    assertClean(own);
    await own.close();
    await assert.rejects(own.xenstore(), { code: "HOST_CLOSED" });
    await assert.rejects(store.read("/"), { code: "HOST_CLOSED" });
  });

  it("goes on when it closes its channel, gives its page back, or takes its grant back", async () => {
    const ringGuest = await RingGuest.create(host);
    await ringGuest.ask(XS_WRITE, "data/x", "1");
    const { hypervisor } = host;
    const { grants, directMap } = hypervisor;
    directMap.storeU32(grants.entryAddress(ringGuest.slot, 1), 0);
    assert.equal(await ringGuest.ask(XS_READ, "data/x", ""), "1");
    const store = await host.xenstore();
    await store.release(ringGuest.domid);
    await assert.rejects(store.introduce(ringGuest.domid, 0xf_fffa, ringGuest.port()), { error: "EINVAL" });
    await assert.rejects(store.introduce(32_000, 0xf_fffa, 1), { error: "EINVAL" });
    assertClean(host);
    await ringGuest.domain.destroy();
    assertClean(host);
  });

  it("X25: begins anew with RELEASE and INTRODUCE, as a kexec does, a hundred times (XSA-425)", async () => {
    const store = await host.xenstore();
    const ringGuest = await RingGuest.create(host);
    for (let turn = 0; turn < 100; turn += 1) {
      await ringGuest.ask(abi.XS_WATCH, "data", "t", "");
      await ringGuest.ask(abi.XS_TRANSACTION_START, "");
      await ringGuest.send(XS_READ, "name\0");
      await store.release(ringGuest.domid);
      // The next kernel finds the ring empty.
      ringGuest.setWord(layout.req_prod.offset, ringGuest.word(layout.req_cons.offset));
      ringGuest.setWord(layout.rsp_cons.offset, ringGuest.word(layout.rsp_prod.offset));
      await store.introduce(ringGuest.domid, 0, ringGuest.port());
      assert.equal(await ringGuest.ask(XS_READ, "domid", ""), String(ringGuest.domid));
    }
    assert.match(await store.control("memreport"), new RegExp(`domain ${ringGuest.domid} nodes \\d+ watches 0 `));
    assertClean(host);
    await ringGuest.domain.destroy();
    assertClean(host);
  });
});

describe("a number that another domain had before", () => {
  const DOMID = 30_007;

  it("X09: brings no permission with it, nor nodes, watches or channels (XSA-322)", async () => {
    const store = await host.xenstore();
    const giver = await RingGuest.create(host);
    const first = await createAs(host, DOMID);
    assert.equal(first.domid, DOMID);
    await giver.ask(XS_WRITE, "data/secret", "s");
    assert.equal(await giver.ask(XS_SET_PERMS, "data/secret", `n${giver.domid}`, `r${DOMID}`, ""), "OK");
    assert.equal(await first.ask(XS_READ, `${home(giver.domid)}/data/secret`, ""), "s", "the control");
    await first.ask(abi.XS_WATCH, `${home(giver.domid)}/data`, "t", "");
    await first.domain.destroy();
    const second = await createAs(host, DOMID);
    assert.equal(second.domid, DOMID);
    assert.equal(await second.ask(XS_READ, `${home(giver.domid)}/data/secret`, ""), "EACCES");
    await giver.ask(XS_WRITE, "data/secret", "changed");
    assert.equal(await second.ask(XS_READ, "domid", ""), String(DOMID));
    assert.deepEqual(second.events, []);
    assert.equal(await store.readIfPresent(`${home(DOMID)}/data/x`), undefined);
    await Promise.all([giver.domain.destroy(), second.domain.destroy()]);
    assertClean(host);
  });

  it("X20: is nobody's until there is a domain: what was said of it before is void (XSA-417)", async () => {
    const store = await host.xenstore();
    await store.write("/shared", "s");
    await store.setPermissions("/shared", [
      { domid: 0, access: "n" },
      { domid: DOMID, access: "r" },
    ]);
    const later = await createAs(host, DOMID);
    assert.equal(await later.ask(XS_READ, "/shared", ""), "EACCES");
    await store.setPermissions("/shared", [
      { domid: 0, access: "n" },
      { domid: DOMID, access: "r" },
    ]);
    assert.equal(await later.ask(XS_READ, "/shared", ""), "s", "the control");
    await store.rm("/shared");
    await later.domain.destroy();
  });

  it("X22: does not let nodes pile up that dead domains made where others may write (XSA-419)", async () => {
    const store = await host.xenstore();
    await store.mkdir("/board");
    await store.setPermissions("/board", [{ domid: 0, access: "b" }]);
    const before = await dump(store);
    for (let turn = 0; turn < 50; turn += 1) {
      const ringGuest = await createAs(host, DOMID);
      assert.equal(await ringGuest.ask(XS_MKDIR, `/board/n${turn}`, ""), "OK");
      await ringGuest.domain.destroy();
    }
    assert.deepEqual(await dump(store), before);
    await store.rm("/board");
  });

  it("X28: has the whole quota again (XSA-483)", async () => {
    const counts: number[] = [];
    for (let turn = 0; turn < 2; turn += 1) {
      const ringGuest = await createAs(host, DOMID);
      let count = 0;
      while ((await ringGuest.ask(XS_MKDIR, `data/n${count}`, "")) === "OK") count += 1;
      counts.push(count);
      await ringGuest.domain.destroy();
    }
    assert.ok(counts[0]! > 900);
    assert.equal(counts[1], counts[0]);
  });
});

describe("a hostile ring", () => {
  it("X01: with indices that cannot be is stopped with an error word, and begins anew on request (XSA-38)", async () => {
    const bad = await RingGuest.create(host);
    const good = await RingGuest.create(host);
    for (const distance of [1025, 2 ** 31, 2 ** 32 - 1]) {
      bad.setWord(layout.req_prod.offset, bad.word(layout.req_cons.offset) + distance);
      bad.notify();
      await eventually(() => bad.word(layout.error.offset) === abi.XENSTORE_ERROR_RINGIDX);
      assert.equal(await good.ask(XS_READ, "domid", ""), String(good.domid));
      bad.setWord(layout.connection.offset, abi.XENSTORE_RECONNECT);
      bad.notify();
      await eventually(() => bad.word(layout.connection.offset) === abi.XENSTORE_CONNECTED);
      assert.equal(await bad.ask(XS_READ, "domid", ""), String(bad.domid));
    }
    await Promise.all([bad.domain.destroy(), good.domain.destroy()]);
    assertClean(host);
  });

  it("X12: whose guest misbehaved and died is released once, like any other (XSA-325)", async () => {
    const store = await host.xenstore();
    const released = collect(store, RELEASE_DOMAIN);
    await store.read("/");
    const bad = await RingGuest.create(host);
    await bad.put(new Uint8Array(64).fill(0xff));
    await eventually(() => bad.word(layout.error.offset) === abi.XENSTORE_ERROR_PROTO);
    await store.read("/");
    assert.equal(released.seen.length, 1);
    await bad.domain.destroy();
    await store.read("/");
    assert.equal(released.seen.length, 2);
    await released.close();
    assert.equal(await store.readIfPresent(home(bad.domid)), undefined);
    assertClean(host);
  });
});
