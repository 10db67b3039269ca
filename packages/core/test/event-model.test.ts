/**
 * Ports of three domains against a plain model: any sequence of operations gives the same results, and afterwards the
 * same ports, pending bits, selectors and upcalls.
 */
import * as abi from "@xenolith/abi";
import { EBUSY, EEXIST, EINVAL, ENOENT, ENOSPC } from "@xenolith/abi";
import fc from "fast-check";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as kit from "./events-kit.ts";
import type { Guest } from "./machine.ts";
import { Machine } from "./machine.ts";

const PORT_MAX = 6;
const VCPU_COUNT = 2;
const VIRQS = [abi.VIRQ_TIMER, abi.VIRQ_DEBUG, abi.VIRQ_ARGO, abi.VIRQ_DOM_EXC] as const;

/** What the model knows of one port. */
interface ModelPort {
  kind: number;
  vcpu: number;
  /** unbound: domain index that may bind; interdomain: remote index. */
  remote: number;
  remotePort: number;
  /** virq: its number and the vCPU it was bound for. */
  virq: number;
  home: number;
}

interface ModelVcpu {
  upcall: boolean;
  selector: boolean;
}

interface ModelDomain {
  readonly ports: Map<number, ModelPort>;
  readonly pending: Set<number>;
  readonly masked: Set<number>;
  readonly vcpus: ModelVcpu[];
}

/** Operations; `who` and `other` are indices of domains. */
type Operation =
  | { readonly op: "alloc" | "interdomain"; readonly who: number; readonly other: number; readonly port: number }
  | { readonly op: "virq"; readonly who: number; readonly virq: number; readonly vcpu: number }
  | { readonly op: "ipi"; readonly who: number; readonly vcpu: number }
  | { readonly op: "close" | "send" | "unmask" | "mask" | "scan"; readonly who: number; readonly port: number }
  | { readonly op: "bindVcpu"; readonly who: number; readonly port: number; readonly vcpu: number }
  | { readonly op: "reset"; readonly who: number };

const who = fc.nat(2);
const port = fc.nat(PORT_MAX + 1);
const vcpu = fc.nat(VCPU_COUNT);
const operation: fc.Arbitrary<Operation> = fc.oneof(
  fc.record({ op: fc.constantFrom("alloc" as const, "interdomain" as const), who, other: who, port }),
  fc.record({ op: fc.constantFrom("alloc" as const, "interdomain" as const), who, other: who, port }),
  fc.record({ op: fc.constant("virq" as const), who, virq: fc.nat(VIRQS.length - 1), vcpu }),
  fc.record({ op: fc.constant("ipi" as const), who, vcpu }),
  fc.record({
    op: fc.constantFrom("close" as const, "send" as const, "unmask" as const, "mask" as const, "scan" as const),
    who,
    port,
  }),
  fc.record({ op: fc.constant("send" as const), who, port }),
  fc.record({ op: fc.constant("bindVcpu" as const), who, port, vcpu }),
  fc.record({ op: fc.constant("reset" as const), who }),
);

const newDomain = (): ModelDomain => ({
  ports: new Map(),
  pending: new Set(),
  masked: new Set(),
  vcpus: Array.from({ length: VCPU_COUNT }, () => ({ upcall: false, selector: false })),
});

/** The model. Method names are those of the operations; results are ports, 0, or a negative errno. */
class Model {
  readonly domains = [newDomain(), newDomain(), newDomain()];

  run(action: Operation): number {
    const domain = this.domains[action.who]!;
    switch (action.op) {
      case "alloc":
        return this.#open(domain, { kind: abi.EVTCHNSTAT_unbound, remote: action.other });
      case "interdomain":
        return this.#interdomain(action.who, action.other, action.port);
      case "virq":
        return this.#virq(domain, VIRQS[action.virq]!, action.vcpu);
      case "ipi":
        return action.vcpu >= VCPU_COUNT
          ? -ENOENT
          : this.#open(domain, { kind: abi.EVTCHNSTAT_ipi, vcpu: action.vcpu });
      case "close":
        return this.#close(action.who, action.port);
      case "send":
        return this.#send(domain, action.port);
      case "unmask":
        return this.#unmask(domain, action.port);
      case "mask":
        domain.masked.add(action.port);
        return 0;
      case "scan":
        return this.#scan(domain);
      case "bindVcpu":
        return this.#bindVcpu(domain, action.port, action.vcpu);
      case "reset":
        for (const open of domain.ports.keys()) this.#close(action.who, open);
        return 0;
    }
  }

  #open(domain: ModelDomain, about: Partial<ModelPort>): number {
    for (let free = 1; free <= PORT_MAX; free += 1) {
      if (domain.ports.has(free)) continue;
      domain.ports.set(free, { kind: 0, vcpu: 0, remote: -1, remotePort: 0, virq: 0, home: 0, ...about });
      return free;
    }
    return -ENOSPC;
  }

  #interdomain(index: number, other: number, remotePort: number): number {
    const remote = this.domains[other]!.ports.get(remotePort);
    if (remote === undefined || remote.kind !== abi.EVTCHNSTAT_unbound || remote.remote !== index) return -EINVAL;
    const opened = this.#open(this.domains[index]!, { kind: abi.EVTCHNSTAT_interdomain, remote: other, remotePort });
    if (opened < 0) return opened;
    Object.assign(remote, { kind: abi.EVTCHNSTAT_interdomain, remote: index, remotePort: opened });
    this.#deliver(this.domains[index]!, opened);
    return opened;
  }

  #virq(domain: ModelDomain, virq: number, on: number): number {
    const isOfVcpu = virq === abi.VIRQ_TIMER || virq === abi.VIRQ_DEBUG;
    if (!isOfVcpu && on !== 0) return -EINVAL;
    if (on >= VCPU_COUNT) return -ENOENT;
    if (virq === abi.VIRQ_DOM_EXC) return -EBUSY;
    for (const other of domain.ports.values()) {
      if (other.kind === abi.EVTCHNSTAT_virq && other.virq === virq && other.home === on) return -EEXIST;
    }
    return this.#open(domain, { kind: abi.EVTCHNSTAT_virq, virq, vcpu: on, home: on });
  }

  #close(index: number, number: number): number {
    const domain = this.domains[index]!;
    const closed = domain.ports.get(number);
    if (closed === undefined) return -EINVAL;
    if (closed.kind === abi.EVTCHNSTAT_interdomain) {
      const peer = this.domains[closed.remote]!.ports.get(closed.remotePort)!;
      Object.assign(peer, { kind: abi.EVTCHNSTAT_unbound, remote: index, remotePort: 0 });
    }
    domain.ports.delete(number);
    domain.pending.delete(number);
    return 0;
  }

  #send(domain: ModelDomain, number: number): number {
    const from = domain.ports.get(number);
    if (from === undefined || from.kind === abi.EVTCHNSTAT_virq) return -EINVAL;
    if (from.kind === abi.EVTCHNSTAT_interdomain) this.#deliver(this.domains[from.remote]!, from.remotePort);
    if (from.kind === abi.EVTCHNSTAT_ipi) this.#deliver(domain, number);
    return 0;
  }

  #deliver(domain: ModelDomain, number: number): void {
    if (domain.pending.has(number)) return;
    domain.pending.add(number);
    if (!domain.masked.has(number)) this.#tell(domain, number);
  }

  #tell(domain: ModelDomain, number: number): void {
    const told = domain.vcpus[domain.ports.get(number)?.vcpu ?? 0]!;
    if (told.selector) return;
    told.selector = true;
    told.upcall = true;
  }

  #unmask(domain: ModelDomain, number: number): number {
    if (number < 1 || number > PORT_MAX) return -EINVAL;
    if (domain.masked.delete(number) && domain.pending.has(number)) this.#tell(domain, number);
    return 0;
  }

  #scan(domain: ModelDomain): number {
    for (const each of domain.vcpus) Object.assign(each, { upcall: false, selector: false });
    for (const pending of domain.pending) if (!domain.masked.has(pending)) domain.pending.delete(pending);
    return 0;
  }

  #bindVcpu(domain: ModelDomain, number: number, on: number): number {
    if (on >= VCPU_COUNT) return -ENOENT;
    const moved = domain.ports.get(number);
    if (moved === undefined || moved.kind === abi.EVTCHNSTAT_ipi) return -EINVAL;
    if (moved.kind === abi.EVTCHNSTAT_virq && moved.virq !== abi.VIRQ_ARGO) return -EINVAL;
    moved.vcpu = on;
    return 0;
  }
}

/** Does the same with real hypercalls. */
const perform = (guests: readonly Guest[], action: Operation): number => {
  const guest = guests[action.who]!;
  switch (action.op) {
    case "alloc":
      return kit.allocUnbound(guest, guests[action.other]!.domid);
    case "interdomain":
      return kit.bindInterdomain(guest, guests[action.other]!.domid, action.port);
    case "virq":
      return kit.bindVirq(guest, VIRQS[action.virq]!, action.vcpu);
    case "ipi":
      return kit.bindIpi(guest, action.vcpu);
    case "close":
      return kit.close(guest, action.port);
    case "send":
      return kit.send(guest, action.port);
    case "unmask":
      return kit.unmask(guest, action.port);
    case "mask":
      kit.setMask(guest, action.port, true);
      return 0;
    case "scan":
      return scan(guest);
    case "bindVcpu":
      return kit.bindVcpu(guest, action.port, action.vcpu);
    case "reset":
      return kit.reset(guest);
  }
};

/** A guest that looks at everything: told or not, it handles what is pending and not masked. */
const scan = (guest: Guest): number => {
  const page = kit.sharedInfo(guest.cpu.hypervisor, guest.slot);
  for (let on = 0; on < VCPU_COUNT; on += 1) kit.clearUpcall(guest, on);
  const mask = page.getUint32(abi.shared_info.evtchn_mask.offset, true);
  const at = abi.shared_info.evtchn_pending.offset;
  page.setUint32(at, (page.getUint32(at, true) & mask) >>> 0, true);
  return 0;
};

/** Fails unless the domain is as the model says. */
const compare = (guests: readonly Guest[], index: number, domain: ModelDomain): void => {
  const guest = guests[index]!;
  for (let number = 1; number <= PORT_MAX; number += 1) {
    const expected = domain.ports.get(number);
    const actual = kit.status(guest, number);
    const where = `domain ${index} port ${number}`;
    assert.equal(actual.status, expected?.kind ?? abi.EVTCHNSTAT_closed, where);
    assert.equal(kit.pending(guest, number), domain.pending.has(number), `${where}: pending`);
    if (expected === undefined) continue;
    assert.equal(actual.vcpu, expected.vcpu, `${where}: vCPU`);
    if (expected.kind === abi.EVTCHNSTAT_virq) assert.equal(actual.number, expected.virq, where);
    if (expected.kind <= abi.EVTCHNSTAT_interdomain) assert.equal(actual.dom, guests[expected.remote]!.domid, where);
    if (expected.kind === abi.EVTCHNSTAT_interdomain) assert.equal(actual.port, expected.remotePort, where);
  }
  for (const [on, expected] of domain.vcpus.entries()) {
    const where = `domain ${index} vCPU ${on}`;
    assert.equal(kit.upcallPending(guest, on), expected.upcall, `${where}: upcall`);
    assert.equal(kit.selector(guest, on) !== 0, expected.selector, `${where}: selector`);
  }
};

describe("event channels against their model", () => {
  it("every sequence of operations between three domains does what the model does", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 60, size: "max" }), (actions) => {
        const machine = new Machine();
        const spec = { portMax: PORT_MAX, vcpus: VCPU_COUNT };
        const guests = [
          kit.runningGuest(machine, spec),
          kit.runningGuest(machine, spec),
          kit.runningGuest(machine, spec),
        ];
        const model = new Model();
        for (const action of actions) {
          assert.equal(perform(guests, action), model.run(action), JSON.stringify(action));
        }
        for (const [index, domain] of model.domains.entries()) compare(guests, index, domain);
        machine.check();
      }),
      { numRuns: 300 },
    );
  });
});
