import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "../src/index.ts";
import { XenolithError, errno, errnoName, errorCodes, fail, failed, hypercalls } from "../src/index.ts";
import type { MapHandle, Failure } from "../src/index.ts";

describe("error numbers", () => {
  const specification = `EPERM 1, ENOENT 2, ESRCH 3, EINTR 4, EIO 5, ENXIO 6, E2BIG 7, ENOEXEC 8, EBADF 9, ECHILD 10,
    EAGAIN 11, ENOMEM 12, EACCES 13, EFAULT 14, EBUSY 16, EEXIST 17, EXDEV 18, ENODEV 19, ENOTDIR 20, EISDIR 21,
    EINVAL 22, ENFILE 23, EMFILE 24, ENOSPC 28, EROFS 30, EMLINK 31, EDOM 33, ERANGE 34, EDEADLK 35, ENAMETOOLONG 36,
    ENOLCK 37, ENOSYS 38, ENOTEMPTY 39, ENODATA 61, ETIME 62, EBADMSG 74, EOVERFLOW 75, EILSEQ 84, ERESTART 85,
    ENOTSOCK 88, EMSGSIZE 90, EOPNOTSUPP 95, EADDRINUSE 98, EADDRNOTAVAIL 99, ENOBUFS 105, EISCONN 106, ENOTCONN 107,
    ETIMEDOUT 110, ECONNREFUSED 111, ELOOP 40, ENOPKG 65, EDQUOT 122, ENOKEY 126, EKEYEXPIRED 127,
    EKEYREVOKED 128, EKEYREJECTED 129`;

  it("have Xen's values, and Linux's for keys, by name and as constants", () => {
    const rows = specification.split(",").map((row) => row.trim().split(" "));
    assert.deepEqual(errno, Object.fromEntries(rows.map(([name = "", value]) => [name, Number(value)])));
    for (const [name, value] of Object.entries(errno)) assert.equal(Reflect.get(abi, name), value);
  });
  it("have a name in either sign", () => {
    assert.equal(errnoName(28), "ENOSPC");
    assert.equal(errnoName(-28), "ENOSPC");
    assert.equal(errnoName(0), undefined);
    assert.equal(errnoName(15), undefined);
  });
  it("a failure is a negated error number; a handle is none", () => {
    const lookUp = (found: boolean): MapHandle | Failure => (found ? abi.mapHandle(0) : fail("ENOSPC"));
    assert.equal(lookUp(false), -28);
    assert.equal(failed(lookUp(false)), true);
    assert.equal(failed(lookUp(true)), false);
  });
});

describe("constants", () => {
  const groups: Readonly<Record<string, RegExp>> = {
    hypercalls: /^__HYPERVISOR_/,
    "memory operations": /^XENMEM_(?!resource_)/,
    "event channel operations": /^EVTCHNOP_/,
    "scheduler operations": /^SCHEDOP_/,
    "vCPU operations": /^VCPUOP_/,
    "grant table operations": /^GNTTABOP_/,
    "physical device operations": /^PHYSDEVOP_/,
    "domain control operations": /^XEN_DOMCTL_[a-z]/,
    "HVM parameters": /^HVM_PARAM_(?!CALLBACK_TYPE)/,
    "virtual interrupts": /^VIRQ_/,
    features: /^XENFEAT_[a-zA]/,
    "version commands": /^XENVER_/,
    "grant statuses": /^GNTST_/,
    "shutdown reasons": /^SHUTDOWN_[a-z]/,
    "map spaces": /^XENMAPSPACE_/,
    "secret memory operations": /^XENSECRET_[a-z]/,
    "what a query tells about a secret object": /^XENSECRET_IS_/,
  };
  const named = Object.entries(abi).filter((entry): entry is [string, number] => typeof entry[1] === "number");
  for (const [title, pattern] of Object.entries(groups)) {
    it(`${title}: no number stands for two things`, () => {
      const values = named.filter(([name]) => pattern.test(name)).map(([, value]) => value);
      assert.ok(values.length > 3);
      assert.equal(new Set(values).size, values.length);
    });
  }

  const spots = `
    __HYPERVISOR_memory_op 12, __HYPERVISOR_set_timer_op 15, __HYPERVISOR_xen_version 17, __HYPERVISOR_console_io 18,
    __HYPERVISOR_grant_table_op 20, __HYPERVISOR_vcpu_op 24, __HYPERVISOR_sched_op 29,
    __HYPERVISOR_event_channel_op 32, __HYPERVISOR_physdev_op 33, __HYPERVISOR_hvm_op 34, __HYPERVISOR_sysctl 35,
    __HYPERVISOR_domctl 36, __HYPERVISOR_secret_op 48, __HYPERVISOR_key_op 49, __HYPERVISOR_arch_7 55, DOMID_SELF 32752, DOMID_INVALID 32756, DOMID_IDLE 32767,
    VIRQ_DOM_EXC 3, VIRQ_ENOMEM 12, NR_VIRQS 24, XENMEM_populate_physmap 6, XENMEM_claim_pages 24,
    XENMEM_acquire_resource 28, EVTCHNOP_send 4, EVTCHNOP_unmask 9, EVTCHNOP_reset 10, SCHEDOP_poll 3,
    SCHEDOP_watchdog 6, SHUTDOWN_soft_reset 5, VCPUOP_register_vcpu_info 10, PHYSDEVOP_map_pirq 13,
    HVM_PARAM_MCA_CAP 38, HVM_NR_PARAMS 39, XENFEAT_dm_msix_all_writes 20, GNTTABOP_cache_flush 12,
    GNTTABOP_map_revokable 13, GNTTABOP_revoke 14, GNTTABOP_reset 15, GNTTABOP_unmap_notify 16, GTF_revokable 512, GNTST_no_space -13,
    XEN_DOMCTL_soft_reset 79, XEN_DOMCTL_freeze_memory 4096, XEN_DOMCTL_INTERFACE_VERSION 24, XEN_SYSCTL_INTERFACE_VERSION 22,
    XEN_SYSCTL_physinfo 3, XEN_SYSCTL_getdomaininfolist 6, XENMAPIDX_grant_table_status 2147483648,
    XENSECRET_query 8, XENSECRET_QUOTA 4294967295, XENSECRET_IS_REVOKED 32`;
  for (const spot of spots.split(",")) {
    const [name = "", value = ""] = spot.trim().split(" ");
    it(`${name} is ${value}`, () => assert.equal(Reflect.get(abi, name), Number(value)));
  }

  it("the table of hypercalls agrees with the numbers", () => {
    for (const [name, { number }] of Object.entries(hypercalls)) {
      assert.equal(Reflect.get(abi, `__HYPERVISOR_${name}`), number);
    }
  });
});

describe("XenolithError", () => {
  it("carries a code of the table, its own name and the cause", () => {
    const cause = new Error("ENOENT");
    const error = new XenolithError("DIRECTORY_NOT_FOUND", "no directory /data", { cause });
    assert.deepEqual(
      [error.code, error.name, error.message],
      ["DIRECTORY_NOT_FOUND", "XenolithError", "no directory /data"],
    );
    assert.equal(error.cause, cause);
    assert.ok(error instanceof Error);
    assert.equal(new XenolithError("TIMEOUT", "5 s").cause, undefined);
  });
  it("every code has a meaning: one or more sentences", () => {
    for (const [code, meaning] of Object.entries(errorCodes)) {
      assert.match(code, /^[A-Z][A-Z_]+$/);
      assert.match(meaning, /^[A-Z].*\.$/);
    }
  });
});

describe("brands", () => {
  it("change nothing about the number", () => {
    const makers = [abi.domid, abi.gfn, abi.mfn, abi.port, abi.vcpuId, abi.pirq, abi.virq, abi.grantRef, abi.mapHandle];
    for (const make of makers) assert.equal(make(7), 7);
  });
});
