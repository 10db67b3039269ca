import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  backPath,
  createDevice,
  frontPath,
  guestOwnedNodes,
  parseXenbusState,
  removeDevice,
  removeDomainTree,
  requestShutdown,
  shutdownFrontend,
  writeDomainTree,
  XenbusDevice,
  XenbusState,
  XenstoreClient,
  XenstoreServer,
} from "../src/index.ts";
import { Guest, OK } from "./kit.ts";

const device = { type: "vbd", id: 768, frontDomid: 7, backDomid: 0 };
const { Initialising, InitWait, Connected, Closing, Closed, Unknown } = XenbusState;

const setUp = async () => {
  const server = new XenstoreServer();
  const client = XenstoreClient.inProcess(server);
  const guest = new Guest(server, 7);
  await createDevice(client, device, { back: { "max-ring-page-order": "4" } });
  return { server, client, guest };
};

describe("xenbus", () => {
  it("each end finds the other, starts in Initialising, and may not write the other's nodes", async () => {
    const { client, guest } = await setUp();
    assert.equal(frontPath(device), "/local/domain/7/device/vbd/768");
    assert.equal(backPath(device), "/local/domain/0/backend/vbd/7/768");
    assert.equal(await client.read(`${frontPath(device)}/backend`), backPath(device));
    assert.equal(await client.read(`${backPath(device)}/frontend-id`), "7");
    assert.equal(guest.read(`${backPath(device)}/max-ring-page-order`), "4");
    assert.equal(guest.write(`${backPath(device)}/state`, "4"), "!EACCES");
    assert.equal(guest.write("device/vbd/768/state", "3"), OK);
    await removeDevice(client, device);
    await removeDevice(client, device);
    assert.equal(await client.readIfPresent(`${frontPath(device)}/state`), undefined);
  });

  it("a state that is not one is Unknown", () => {
    assert.deepEqual(
      ["0", "4", "8", "9", "-1", "", " 4", "4x", undefined].map((value) => parseXenbusState(value)),
      [0, 4, 8, 0, 0, 0, 0, 0, 0],
    );
  });

  it("switchState says a new state, and makes no node that was removed", async () => {
    const { client } = await setUp();
    const back = XenbusDevice.back(client, device);
    await back.switchState(InitWait);
    assert.equal(await back.state(), InitWait);
    await removeDevice(client, device);
    await back.switchState(Connected);
    assert.equal(await back.state(), Unknown);
    assert.equal(await client.readIfPresent(backPath(device)), undefined);
  });

  it("each end waits for the states of the other", async () => {
    const { client } = await setUp();
    const [back, front] = [XenbusDevice.back(client, device), XenbusDevice.front(client, device)];
    const connected = back.waitForState([Connected]);
    await front.write("ring-ref", "8");
    await front.switchState(Connected);
    assert.equal(await connected, Connected);
    assert.equal(await back.readOther("ring-ref"), "8");
    const gone = back.waitForState([Unknown]);
    await removeDevice(client, device);
    assert.equal(await gone, Unknown);
  });

  it("a front end is shut down by Closing, Closed, Initialising, each after the other end", async () => {
    const { client } = await setUp();
    const [back, front] = [XenbusDevice.back(client, device), XenbusDevice.front(client, device)];
    await back.switchState(Connected);
    const seen: number[] = [];
    const backEnd = (async () => {
      const answers = new Map([
        [Closing, Closing],
        [Closed, Closed],
        [Initialising, InitWait],
      ]);
      for await (const state of back.watchOtherEnd()) {
        seen.push(state);
        const answer = answers.get(state as typeof Closing);
        if (seen.length > 1 && answer !== undefined) await back.switchState(answer);
        if (seen.length > 1 && answer === InitWait) return;
      }
    })();
    await front.state();
    await shutdownFrontend(front);
    await backEnd;
    assert.deepEqual(seen, [Initialising, Closing, Closed, Initialising]);
  });

  it("X31: a wait that is given up leaves no watch behind (CVE-2024-53198)", async () => {
    const { client, server } = await setUp();
    const back = XenbusDevice.back(client, device);
    for (let attempt = 0; attempt < 200; attempt += 1) {
      const controller = new AbortController();
      const wait = back.waitForState([Connected], controller.signal);
      await client.write(`${frontPath(device)}/state`, String((attempt % 3) + 1));
      controller.abort();
      await assert.rejects(wait, { code: "ABORTED" });
    }
    await client.read("/");
    assert.equal(server.store.watches.placeCount, 0);
    assert.deepEqual(server.audit(), []);
  });

  it("X15: a state that is written a hundred thousand times waits once (XSA-349)", async () => {
    const { client, guest, server } = await setUp();
    const watcher = client.watch(`${frontPath(device)}/state`);
    await watcher.next();
    for (let turn = 0; turn < 100_000; turn += 1) {
      server.store.write(server.store.domains.find(7)!, `${frontPath(device)}/state`, Uint8Array.of(49 + (turn & 1)));
    }
    assert.equal(guest.write("device/vbd/768/state", "4"), OK);
    await client.read("/");
    assert.ok(watcher.pendingCount <= 1);
    await watcher.close();
  });
});

describe("the home of a domain", () => {
  const tree = {
    domid: 7,
    name: "guest",
    uuid: "1f0d9c1e-0000-4000-8000-000000000007",
    memory: { staticMaxKib: 65536, targetKib: 32768 },
    store: { port: 1, ringRef: 1 },
    console: { port: 2, ringRef: 2, type: "xenconsoled", limitBytes: 65536 },
  };

  it("holds what the toolstack says, for the guest to read", async () => {
    const server = new XenstoreServer();
    const client = XenstoreClient.inProcess(server);
    server.createDomain(7);
    await writeDomainTree(client, tree);
    const guest = new Guest(server, 7);
    assert.equal(guest.read("domid"), "7");
    assert.equal(guest.read("memory/target"), "32768");
    assert.equal(guest.read(guest.read("vm") + "/name"), "guest");
    assert.equal(guest.list("console"), "limit port ring-ref type");
    await removeDomainTree(client, 7);
    assert.deepEqual(await client.directory("/local/domain"), []);
    assert.deepEqual(await client.directory("/vm"), []);
  });

  it("X03: a guest writes only what it is meant to say; what steers others is not its own (XSA-57)", async () => {
    const server = new XenstoreServer();
    const client = XenstoreClient.inProcess(server);
    server.createDomain(7);
    await writeDomainTree(client, tree);
    const guest = new Guest(server, 7);
    const all = ["", "name", "domid", "vm", "memory", "memory/target", "store/port", "console", "console/limit"];
    for (const path of [...all, "console/type", "console/tty", "device", "control", "new"]) {
      const absolute = `/local/domain/7${path === "" ? "" : `/${path}`}`;
      assert.equal(guest.write(absolute, "evil"), "!EACCES", path);
      assert.equal(guest.rm(absolute), "!EACCES", path);
      assert.equal(guest.chmod(absolute, "n7"), "!EACCES", path);
    }
    for (const path of guestOwnedNodes) assert.equal(guest.write(path, "1"), OK, path);
  });

  it("a shutdown request is seen when the guest clears it", async () => {
    const server = new XenstoreServer();
    const client = XenstoreClient.inProcess(server);
    server.createDomain(7);
    await writeDomainTree(client, tree);
    const guest = new Guest(server, 7);
    const seen = requestShutdown(client, 7, "poweroff");
    while (guest.read("control/shutdown") !== "poweroff") await new Promise(setImmediate);
    guest.write("control/shutdown", "");
    await seen;
    const aborted = requestShutdown(client, 7, "reboot", AbortSignal.abort());
    await assert.rejects(aborted, { code: "ABORTED" });
  });
});
