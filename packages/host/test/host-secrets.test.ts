import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { XenolithError } from "@xenolith/abi";
import { KEY_SPEC, settle } from "@xenolith/keys";
import { HostKeys } from "../src/host-keys.ts";
import { DOMAIN_UID_FIRST, domainUid } from "../src/keys/keyring-table.ts";
import { HostSecrets } from "../src/host-secrets.ts";
import { guest, openHost } from "./support.ts";

const secrets = { policy: "degraded", underPressure: () => false } as const;

const codeOf = async (work: Promise<unknown>): Promise<string> => {
  try {
    await work;
    return "none";
  } catch (error) {
    assert.ok(error instanceof XenolithError, String(error));
    return error.code;
  }
};

describe("secret memory of a host", () => {
  it("is one pool, which is closed with the host", async () => {
    const host = await openHost({ warmVcpuCount: 0, secrets: { ...secrets, bytesMax: 4 * 2 ** 20 } });
    const [pool, again] = await Promise.all([host.secrets(), host.secrets()]);
    const { ceilingBytes } = pool.statistics();
    const secret = pool.owner("program").keep(Buffer.from("correct horse"));
    await host.close();
    assert.equal(pool, again);
    assert.ok(ceilingBytes <= 4 * 2 ** 20);
    assert.equal(secret.isLive, false);
    assert.equal(await codeOf(host.secrets()), "HOST_CLOSED");
    assert.equal(await codeOf(host.keys()), "HOST_CLOSED");
  });

  it("that cannot be opened is an error for who wants it, and the host goes on", async () => {
    const host = await openHost({ warmVcpuCount: 0, secrets: { ...secrets, bytesMax: 17.5 } });
    const codes = [await codeOf(host.secrets()), await codeOf(host.keys()), await codeOf(host.secrets())];
    const findings = host.audit();
    await host.close();
    assert.deepEqual(codes, ["INVALID_ARGUMENT", "INVALID_ARGUMENT", "INVALID_ARGUMENT"]);
    assert.deepEqual(findings, []);
  });

  it("has an owner for each domain, with its quota, until the domain is destroyed", async () => {
    const faults: string[] = [];
    const holder = new HostSecrets({ ...secrets, domainQuota: { slots: 2 } }, (fault) => faults.push(fault));
    const before = holder.opened;
    const pool = await holder.pool();
    assert.deepEqual([before, holder.opened === pool], [undefined, true]);
    const owner = holder.ownerOf(pool, 5);
    assert.equal(holder.ownerOf(pool, 5), owner);
    assert.equal(owner.path, "domain:5");
    const kept = [owner.allocate(32), holder.ownerOf(pool, 6).allocate(32)];
    owner.allocate(32);
    assert.deepEqual(Object.keys(owner.tryAllocate(32)), ["code", "message"], "its quota is two");
    holder.release(5);
    holder.release(7);
    assert.deepEqual(
      kept.map(({ isLive }) => isLive),
      [false, true],
    );
    assert.notEqual(holder.ownerOf(pool, 5), owner);
    assert.equal(holder.ownerOf(pool, 5).path, "domain:5");
    await holder.close();
    assert.deepEqual(faults, []);
    assert.equal(await codeOf(holder.pool()), "HOST_CLOSED");
    assert.equal(pool.statistics().slots, 0);
  });
});

describe("keys of a host", () => {
  it("are of one service, with payloads in the host's secret memory", async () => {
    const host = await openHost({ warmVcpuCount: 0, secrets, keys: { limits: { maxKeys: 3 } } });
    const [keys, again, pool] = await Promise.all([host.keys(), host.keys(), host.secrets()]);
    const program = keys.attach({ pid: process.pid, uid: 0, gid: 0 });
    await settle(keys.joinSession(program, null));
    const serial = await settle(keys.addKey(program, "user", "db:orders", Buffer.alloc(32, 1), KEY_SPEC.session));
    const { slots, owners } = pool.statistics();
    const { maxKeys } = keys.limits;
    await host.close();
    assert.equal(keys, again);
    assert.ok(serial > 0);
    assert.deepEqual(
      owners.map(({ path }) => path),
      ["keys:uid:0"],
    );
    assert.deepEqual([slots, maxKeys, pool.statistics().slots], [1, 3, 0]);
  });

  it("of a domain are paid for by an owner of its own, which the next domain of that number is not", async () => {
    const host = await openHost({ warmVcpuCount: 0 });
    const { hypervisor } = host;
    const holder = new HostSecrets({ ...secrets, domainQuota: { slots: 1 } }, () => {});
    const keys = new HostKeys({ hypervisor, secrets: holder, nameOf: String });
    const [pool, service] = await Promise.all([holder.pool(), keys.service()]);
    const paths = (): string[] => pool.statistics().owners.map(({ path }) => path);
    const image = guest(`(module (memory (export "memory") 1) (func (export "_start")))`);
    const results: number[] = [];
    const seen: string[] = [];
    for (let times = 0; times < 2; times += 1) {
      hypervisor.domains.serial[1] = 41;
      const domain = await host.createDomain({ image });
      const caller = service.attach(keys.keyrings.identityOf(hypervisor.domains.slotOf(domain.domid)));
      const add = (name: string, ring: number): Promise<number> =>
        settle(service.addKey(caller, "user", name, Buffer.alloc(8, 1), ring));
      results.push(await add("a", KEY_SPEC.process), await add("b", KEY_SPEC.process));
      seen.push(`keys:domain:${domain.domid}.${domain.generation}`);
      await domain.destroy();
    }
    const owners = paths();
    service.close();
    await host.close();
    await holder.close();
    assert.deepEqual(owners, seen);
    assert.equal(new Set(seen).size, 2);
    assert.deepEqual(
      results.map((result) => Math.min(0, result)),
      [0, -122, 0, -122],
    );
  });

  it("have users for domains, of whom none is one of Linux and none is two domains", () => {
    const of = [0, 1, 2 ** 31 - 3, 2 ** 32 - 1].map(domainUid);
    assert.deepEqual(of.slice(0, 2), [DOMAIN_UID_FIRST, DOMAIN_UID_FIRST + 1]);
    for (const uid of of) assert.ok(uid >= DOMAIN_UID_FIRST && uid < 2 ** 32 - 2, String(uid));
    assert.equal(new Set(of.slice(0, 3)).size, 3);
  });
});
