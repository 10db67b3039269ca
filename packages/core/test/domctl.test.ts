import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ATTENTION_REQUEST } from "../src/attention.ts";
import { freeFrameCount } from "../src/buddy.ts";
import { domainInfo } from "../src/domain-info.ts";
import { crashDomain, setTarget, shutdownDomain } from "../src/domain-ops.ts";
import { reapStage } from "../src/domain-reap.ts";
import { domctlOperations } from "../src/domctl.ts";
import { vcpuThreadStarted } from "../src/domain-run.ts";
import { hypercall } from "../src/hypercall.ts";
import { Machine, peek, poke, pokeWords, RAM_BYTES, RAM_FRAMES } from "./machine.ts";
import type { Guest } from "./machine.ts";

const { EEXIST, EFAULT, EINVAL, EOPNOTSUPP, EOVERFLOW, EPERM, ESRCH } = abi;
const AT = 0x1000;
const DOMCTL = abi.__HYPERVISOR_domctl;
const SYSCTL = abi.__HYPERVISOR_sysctl;
const { u } = abi.xen_domctl;

type Fill = (view: DataView) => void;

/** Makes a domctl; `fill` writes its body (offsets are of the whole structure). */
const call = (machine: Machine, caller: Guest, command: number, domid: number, fill?: Fill): number => {
  writeCall(caller, command, domid, fill);
  return machine.call(caller, DOMCTL, AT);
};

const writeCall = (caller: Guest, command: number, domid: number, fill?: Fill): void => {
  const view = new DataView(new ArrayBuffer(abi.xen_domctl.sizeBytes));
  abi.xen_domctl.cmd.set(view, 0, command);
  abi.xen_domctl.interface_version.set(view, 0, abi.XEN_DOMCTL_INTERFACE_VERSION);
  abi.xen_domctl.domain.set(view, 0, domid);
  fill?.(view);
  poke(caller, AT, new Uint8Array(view.buffer));
};

const reply = (guest: Guest): DataView => new DataView(peek(guest, AT, abi.xen_domctl.sizeBytes).buffer);

/** A creation that is in order. */
const goodCreate: Fill = (view) => {
  u.createdomain.flags.set(view, 0, abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap);
  u.createdomain.max_vcpus.set(view, 0, 1);
  u.createdomain.max_evtchn_port.set(view, 0, 1023);
  u.createdomain.max_grant_frames.set(view, 0, -1);
  u.createdomain.max_maptrack_frames.set(view, 0, -1);
  u.createdomain.grant_opts.set(view, 0, 1);
};

const create = (machine: Machine, domid: number, change?: Fill, caller = machine.dom0): number =>
  call(machine, caller, abi.XEN_DOMCTL_createdomain, domid, (view) => {
    goodCreate(view);
    change?.(view);
  });

describe("domctl createdomain", () => {
  it("creates a paused domain without memory, says its number and asks the host for the rest", () => {
    const machine = new Machine();
    machine.hypervisor.attention.take();
    const handle = Uint8Array.from({ length: 16 }, (_, index) => 200 + index);
    assert.equal(
      create(machine, abi.DOMID_ANY, (view) => u.createdomain.handle.set(view, 0, handle)),
      0,
    );
    const domid = abi.xen_domctl.domain.get(reply(machine.dom0), 0);
    assert.equal(domid, 1);
    const info = domainInfo(machine.hypervisor, machine.hypervisor.domains.slotOf(domid));
    assert.equal(info.state, "paused");
    assert.equal(info.maxPages, 0);
    assert.deepEqual(info.handle, handle);
    assert.notEqual(machine.hypervisor.attention.take() & ATTENTION_REQUEST, 0);
  });

  it("takes a free number and refuses one in use", () => {
    const machine = new Machine();
    assert.equal(create(machine, 44), 0);
    assert.equal(create(machine, 44), -EEXIST);
    assert.equal(create(machine, 0), -EEXIST);
    assert.equal(create(machine, abi.DOMID_SELF), -EINVAL);
  });

  it("H24: of all flags, options and limits only what exists can be had", () => {
    const machine = new Machine({ domainCountMax: 64 });
    const known = abi.XEN_DOMCTL_CDF_hvm | abi.XEN_DOMCTL_CDF_hap | abi.XEN_DOMCTL_CDF_xs_domain;
    for (let flags = 0; flags < 1 << 10; flags += 1) {
      for (const vcpus of [0, 1, 4, 5]) {
        const isGood = (flags & ~known) === 0 && (flags & 1) !== 0 && vcpus >= 1 && vcpus <= 4;
        writeCall(machine.dom0, abi.XEN_DOMCTL_createdomain, abi.DOMID_ANY, (view) => {
          goodCreate(view);
          u.createdomain.flags.set(view, 0, flags);
          u.createdomain.max_vcpus.set(view, 0, vcpus);
        });
        const result = hypercall(machine.dom0.cpu, DOMCTL, AT, 0, 0, 0, 0);
        assert.equal(result, isGood ? 0 : -EINVAL, `flags ${flags}, ${vcpus} vCPUs`);
      }
    }
    machine.check();
    const changes: readonly Fill[] = [
      (view) => u.createdomain.flags.set(view, 0, 0x8000_0001),
      (view) => u.createdomain.iommu_opts.set(view, 0, 1),
      (view) => u.createdomain.max_vcpus.set(view, 0, 0xffff_ffff),
      (view) => u.createdomain.max_grant_frames.set(view, 0, 0),
      (view) => u.createdomain.max_grant_frames.set(view, 0, 0x7fff_ffff),
      (view) => u.createdomain.max_maptrack_frames.set(view, 0, 0x7fff_ffff),
      (view) => u.createdomain.grant_opts.set(view, 0, 0),
      (view) => u.createdomain.grant_opts.set(view, 0, 2),
      (view) => u.createdomain.grant_opts.set(view, 0, 0x11),
      (view) => u.createdomain.vmtrace_size.set(view, 0, 4096),
      (view) => u.createdomain.cpupool_id.set(view, 0, 1),
      (view) => u.createdomain.altp2m.opts.set(view, 0, 1),
      (view) => u.createdomain.arch.emulation_flags.set(view, 0, 1),
      (view) => u.createdomain.arch.misc_flags.set(view, 0, 1),
    ];
    for (const change of changes) assert.equal(create(machine, abi.DOMID_ANY, change), -EINVAL, String(change));
    assert.equal(create(machine, abi.DOMID_ANY), 0);
  });

  it("a structure that cannot be written back creates nothing", () => {
    const machine = new Machine();
    assert.equal(machine.call(machine.dom0, DOMCTL, RAM_BYTES - 100), -EFAULT);
    assert.equal(machine.hypervisor.domains.slotOf(1), -1);
  });
});

describe("domctl on domains", () => {
  it("pause and unpause nest; below zero, above 255, dom0 and oneself are refused", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const pause = (domid: number, caller = machine.dom0): number =>
      call(machine, caller, abi.XEN_DOMCTL_pausedomain, domid);
    const unpause = (domid: number): number => call(machine, machine.dom0, abi.XEN_DOMCTL_unpausedomain, domid);
    assert.equal(unpause(guest.domid), -EINVAL);
    assert.equal(pause(guest.domid), 0);
    assert.equal(unpause(guest.domid), 0);
    for (let count = 0; count < 255; count += 1) assert.equal(pause(guest.domid), 0);
    assert.equal(pause(guest.domid), -EOVERFLOW);
    assert.equal(pause(0), -EINVAL);
    assert.equal(pause(88), -ESRCH);
  });

  it("H06: a delegated toolstack's domctls on itself are refused or done cleanly", () => {
    const machine = new Machine();
    machine.keepAwake();
    const stack = machine.guest({ privileged: true });
    const self = stack.domid;
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_pausedomain, self), -EINVAL);
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_destroydomain, self), -EINVAL);
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_resumedomain, self), -EINVAL);
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_soft_reset, self), -EOPNOTSUPP);
    assert.equal(
      call(machine, stack, abi.XEN_DOMCTL_max_vcpus, self, (view) => u.max_vcpus.max.set(view, 0, 1)),
      0,
    );
    assert.equal(
      call(machine, stack, abi.XEN_DOMCTL_max_vcpus, self, (view) => u.max_vcpus.max.set(view, 0, 2)),
      -EINVAL,
    );
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_set_target, self), -EINVAL);
    assert.equal(machine.call(stack, abi.__HYPERVISOR_xen_version, abi.XENVER_pagesize), 4096);
  });

  it("a delegated toolstack may look at dom0 and change nothing about it", () => {
    const machine = new Machine();
    machine.keepAwake();
    const stack = machine.guest({ privileged: true });
    const maxPages = machine.hypervisor.domains.maxPages[0];
    for (const [key, { isQuery, version }] of Object.entries(domctlOperations)) {
      if (version !== undefined || Number(key) === abi.XEN_DOMCTL_createdomain) continue;
      const result = call(machine, stack, Number(key), 0);
      if (isQuery === true) assert.equal(result, 0, `domctl ${key}`);
      else assert.equal(result, -EPERM, `domctl ${key}`);
    }
    assert.equal(machine.hypervisor.domains.maxPages[0], maxPages);
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_setdomainhandle, stack.domid), 0);
  });

  it("a delegated toolstack creates and destroys; what only the host's thread can do is left to it", () => {
    const machine = new Machine();
    const stack = machine.guest({ privileged: true });
    assert.equal(create(machine, 50, undefined, stack), 0);
    const slot = machine.hypervisor.domains.slotOf(50);
    machine.hypervisor.attention.take();
    assert.equal(call(machine, stack, abi.XEN_DOMCTL_destroydomain, 50), 0);
    assert.equal(reapStage(machine.hypervisor, slot), "detach");
    assert.notEqual(machine.hypervisor.attention.take() & ATTENTION_REQUEST, 0);
  });

  it("destruction by dom0 is complete when no thread is in the way, and goes on later when one is", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const busy = machine.guest();
    vcpuThreadStarted(machine.hypervisor, busy.cpu.index, 9);
    for (const domid of [guest.domid, busy.domid]) {
      assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_destroydomain, domid), 0);
    }
    assert.equal(machine.hypervisor.domains.slotOf(guest.domid), -1);
    assert.equal(reapStage(machine.hypervisor, busy.slot), "quiesce");
    assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_destroydomain, guest.domid), -ESRCH);
  });

  it("max_mem takes KiB, binds, may lie below what the domain has, and is capped", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const setMax = (kib: bigint): number =>
      call(machine, machine.dom0, abi.XEN_DOMCTL_max_mem, guest.domid, (view) => {
        view.setBigUint64(u.max_mem.max_memkb.offset, kib, true);
      });
    const { maxPages } = machine.hypervisor.domains;
    for (const [kib, pages] of [
      [43n, 10],
      [0n, 0],
      [2n ** 33n, 2 ** 31],
      [2n ** 64n - 1n, 2 ** 32 - 2],
    ] as const) {
      assert.equal(setMax(kib), 0);
      assert.equal(maxPages[guest.slot], pages);
    }
  });

  it("getdomaininfo tells everything, padding zeroed, also of zombies", () => {
    const machine = new Machine();
    const handle = Uint8Array.from({ length: 16 }, (_, index) => index);
    const guest = machine.guest({ vcpus: 3, handle, xenstore: true });
    const info = u.getdomaininfo;
    const ask = (): DataView => {
      const fill: Fill = (view) => new Uint8Array(view.buffer, 16).fill(0xa5);
      assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_getdomaininfo, guest.domid, fill), 0);
      return reply(machine.dom0);
    };
    const running = ask();
    assert.equal(info.domain.get(running, 0), guest.domid);
    assert.equal(info.tot_pages.get(running, 0), RAM_FRAMES);
    assert.equal(info.max_pages.get(running, 0), 4 * RAM_FRAMES);
    assert.equal(info.max_vcpu_id.get(running, 0), 2);
    assert.equal(info.nr_online_vcpus.get(running, 0), 1);
    assert.deepEqual(info.handle.get(running, 0), handle);
    assert.equal(info.pad1.get(running, 0), 0);
    assert.deepEqual(info.pad2.get(running, 0), new Uint8Array(7));
    const base = abi.XEN_DOMINF_hvm_guest | abi.XEN_DOMINF_hap | abi.XEN_DOMINF_xs_domain;
    assert.equal(info.flags.get(running, 0), base);
    shutdownDomain(machine.hypervisor, guest.slot, abi.SHUTDOWN_reboot);
    assert.equal(info.flags.get(ask(), 0), base | abi.XEN_DOMINF_shutdown | (1 << 16));
    setTarget(machine.hypervisor, machine.guest().slot, guest.slot);
    call(machine, machine.dom0, abi.XEN_DOMCTL_destroydomain, guest.domid);
    const zombie = ask();
    assert.notEqual(info.flags.get(zombie, 0) & abi.XEN_DOMINF_dying, 0);
    assert.equal(info.tot_pages.get(zombie, 0), 0);
  });

  it("getvcpuinfo knows the vCPUs that exist", () => {
    const machine = new Machine();
    const guest = machine.guest({ vcpus: 2 });
    const ask = (vcpu: number): number =>
      call(machine, machine.dom0, abi.XEN_DOMCTL_getvcpuinfo, guest.domid, (view) =>
        u.getvcpuinfo.vcpu.set(view, 0, vcpu),
      );
    assert.equal(ask(0), 0);
    assert.equal(u.getvcpuinfo.online.get(reply(machine.dom0), 0), 1);
    assert.equal(ask(1), 0);
    assert.equal(u.getvcpuinfo.online.get(reply(machine.dom0), 0), 0);
    for (const vcpu of [2, 3, 0xffff_ffff]) assert.equal(ask(vcpu), -EINVAL);
  });

  it("setdomainhandle stores the uuid", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const handle = Uint8Array.from({ length: 16 }, (_, index) => 255 - index);
    const fill: Fill = (view) => u.setdomainhandle.handle.set(view, 0, handle);
    assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_setdomainhandle, guest.domid, fill), 0);
    assert.deepEqual(domainInfo(machine.hypervisor, guest.slot).handle, handle);
  });

  it("resumedomain lets a suspended domain go on, not a crashed one", () => {
    const machine = new Machine();
    const [guest, other] = [machine.guest(), machine.guest()];
    shutdownDomain(machine.hypervisor, guest.slot, abi.SHUTDOWN_suspend);
    assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_resumedomain, guest.domid), 0);
    assert.equal(machine.hypervisor.domains.stateOf(guest.slot), "running");
    crashDomain(machine.hypervisor, other.slot, "test");
    assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_resumedomain, other.domid), -EINVAL);
  });

  it("set_target gives one target, once, to another domain", () => {
    const machine = new Machine();
    const [model, target] = [machine.guest(), machine.guest()];
    const setTo = (domid: number, to: number): number =>
      call(machine, machine.dom0, abi.XEN_DOMCTL_set_target, domid, (view) => u.set_target.target.set(view, 0, to));
    assert.equal(setTo(0, target.domid), -EINVAL);
    assert.equal(setTo(model.domid, model.domid), -EINVAL);
    assert.equal(setTo(model.domid, 99), -ESRCH);
    assert.equal(setTo(model.domid, target.domid), 0);
    assert.equal(setTo(model.domid, target.domid), -EINVAL);
  });

  it("set_virq_handler moves global virqs only", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const move = (virq: number): number =>
      call(machine, machine.dom0, abi.XEN_DOMCTL_set_virq_handler, guest.domid, (view) => {
        u.set_virq_handler.virq.set(view, 0, virq);
      });
    for (const virq of [abi.VIRQ_TIMER, abi.VIRQ_ARGO, 24, 0xffff_ffff]) assert.equal(move(virq), -EINVAL);
    assert.equal(move(abi.VIRQ_DOM_EXC), 0);
    assert.equal(machine.hypervisor.events.virqOwner[abi.VIRQ_DOM_EXC], guest.slot);
  });

  it("get_domain_state tells a stable identity", () => {
    const machine = new Machine();
    const guest = machine.guest();
    const fill: Fill = (view) => abi.xen_domctl.interface_version.set(view, 0, 0);
    assert.equal(call(machine, machine.dom0, abi.XEN_DOMCTL_get_domain_state, guest.domid, fill), 0);
    const state = u.get_domain_state;
    assert.equal(state.state.get(reply(machine.dom0), 0), 1);
    assert.equal(state.unique_id.get(reply(machine.dom0), 0), machine.hypervisor.domains.generation[guest.slot]);
  });

  it("the upper half of a 64-bit handle makes it point nowhere", () => {
    const machine = new Machine();
    pokeWords(machine.dom0, AT, abi.XEN_SYSCTL_getdomaininfolist, abi.XEN_SYSCTL_INTERFACE_VERSION, 0, 4, 0x2000, 1);
    assert.equal(machine.call(machine.dom0, SYSCTL, AT), -EFAULT);
    pokeWords(machine.dom0, AT, abi.XEN_SYSCTL_getdomaininfolist, abi.XEN_SYSCTL_INTERFACE_VERSION, 0, 4, 0x2000, 0);
    assert.equal(machine.call(machine.dom0, SYSCTL, AT), 0);
  });
});

describe("sysctl", () => {
  const list = (machine: Machine, first: number, max: number, buffer = 0x2000): number[] | number => {
    pokeWords(
      machine.dom0,
      AT,
      abi.XEN_SYSCTL_getdomaininfolist,
      abi.XEN_SYSCTL_INTERFACE_VERSION,
      first,
      max,
      buffer,
      0,
    );
    const result = machine.call(machine.dom0, SYSCTL, AT);
    if (result !== 0) return result;
    const view = new DataView(peek(machine.dom0, AT, abi.xen_sysctl.sizeBytes).buffer);
    const count = abi.xen_sysctl.u.getdomaininfolist.num_domains.get(view, 0);
    return Array.from({ length: count }, (_, index) => {
      const row = new DataView(peek(machine.dom0, buffer + index * 112, 112).buffer);
      return abi.xen_domctl_getdomaininfo.domain.get(row, 0);
    });
  };

  it("getdomaininfolist fills the array in ascending order from the first domain asked for, and no further", () => {
    const machine = new Machine();
    for (const domid of [30, 10, 20]) machine.guest({ domid });
    poke(machine.dom0, 0x2000, new Uint8Array(4096).fill(0xa5));
    assert.deepEqual(list(machine, 0, 100), [0, 10, 20, 30]);
    assert.deepEqual(list(machine, 11, 100), [20, 30]);
    assert.deepEqual(list(machine, 31, 100), []);
    assert.deepEqual(list(machine, 0, 0), []);
    poke(machine.dom0, 0x2000, new Uint8Array(4096).fill(0xa5));
    assert.deepEqual(list(machine, 0, 2), [0, 10]);
    assert(peek(machine.dom0, 0x2000 + 224, 112).every((byte) => byte === 0xa5));
  });

  it("an array that is not all there is refused as far as it is needed", () => {
    const machine = new Machine();
    machine.guest();
    assert.equal(list(machine, 0, 2, RAM_BYTES - 112), -EFAULT);
    assert.deepEqual(list(machine, 0, 1, RAM_BYTES - 112), [0]);
  });

  it("physinfo tells the machine's memory, free and claimed", () => {
    const machine = new Machine();
    machine.guest();
    pokeWords(machine.dom0, AT, abi.XEN_SYSCTL_physinfo, abi.XEN_SYSCTL_INTERFACE_VERSION, -1, -1, -1);
    assert.equal(machine.call(machine.dom0, SYSCTL, AT), 0);
    const view = new DataView(peek(machine.dom0, AT, abi.xen_sysctl.sizeBytes).buffer);
    const info = abi.xen_sysctl.u.physinfo;
    assert.equal(info.total_pages.get(view, 0), 500);
    assert.equal(info.free_pages.get(view, 0), freeFrameCount(machine.hypervisor));
    assert.equal(info.max_mfn.get(view, 0), 499);
    assert.equal(info.outstanding_pages.get(view, 0), 0);
  });
});
