/**
 * No wake-up is lost: an operation that goes to sleep is suspended before each of its atomic operations in turn, and
 * there, once, the thing happens that it waits for. If it has not happened by the time the vCPU sleeps, it happens then.
 * A wake-up that got lost shows as a sleep that nobody will ever end, which the fake platform refuses.
 */
import * as abi from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { crashDomain } from "../src/domain-ops.ts";
import { unpauseDomain, pauseDomain } from "../src/domain-run.ts";
import { sendPort } from "../src/event-delivery.ts";
import { ParkedError } from "../src/fake-platform.ts";
import { FUTEX_NOT_EQUAL, FUTEX_WOKEN, guestNotify, guestWait32 } from "../src/futex.ts";
import { GATE_DOWN } from "../src/gate.ts";
import { createCpu } from "../src/hypercall.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import { bringUp, takeDown } from "../src/vcpu-life.ts";
import { VCPU_DOWN } from "../src/vcpu-table.ts";
import { countLocks, otherThread, watchAtomics } from "./advisories-kit.ts";
import * as kit from "./events-kit.ts";
import { Machine, pokeWords } from "./machine.ts";

/** A guest that will sleep, connected with one that will wake it, each on a thread of its own. */
const world = () => {
  const machine = new Machine();
  const sender = kit.runningGuest(machine);
  const sleeper = kit.runningGuest(machine, { vcpus: 2 });
  const { a, b } = kit.connected(machine, sender, sleeper);
  return { machine, sender, sleeper, a, b, hypervisor: machine.hypervisor, thread: otherThread(machine.parts) };
};
type World = ReturnType<typeof world>;

interface Race {
  /** What the sleeping vCPU does. */
  readonly sleep: (about: World) => void;
  /** What ends its sleep; runs on `about.thread`. */
  readonly wake: (about: World) => void;
  readonly verify: (about: World) => void;
  /** The waker takes locks: it cannot act while the sleeper holds one. */
  readonly takesLocks?: boolean;
}

/** Runs the race with the waker at each point of the sleeper, and last of all during its sleep. */
const race = (about: Race): number => {
  for (let at = 0; ; at += 1) {
    const made = world();
    const points = raceAt(about, made, at);
    assert.equal(made.hypervisor.locks.heldCount, 0);
    made.machine.check();
    about.verify(made);
    if (at >= points) return points;
  }
};

const raceAt = ({ sleep, wake, takesLocks = false }: Race, made: World, at: number): number => {
  const { held } = countLocks(made.hypervisor);
  let point = 0;
  let hasWoken = false;
  const act = (): void => {
    hasWoken = true;
    wake(made);
  };
  // Not earlier than its point, unless the vCPU sleeps already: then the waker need not wait any longer.
  made.machine.parts.platform.onWait = () => {
    if (!hasWoken) act();
  };
  watchAtomics(
    () => sleep(made),
    () => {
      if (hasWoken || (takesLocks && held() > 0)) return;
      if (point === at) act();
      point += 1;
    },
  );
  return hasWoken && point < at ? point : point + (hasWoken ? 0 : 1);
};

const toLastPoint = (about: Race): void => {
  const points = race(about);
  assert.ok(points > 5, `${points} points`);
};

describe("no wake-up is lost", () => {
  it("between block and an event", () => {
    toLastPoint({
      sleep: ({ sleeper }) => assert.equal(kit.sched(sleeper, abi.SCHEDOP_block), 0),
      wake: ({ thread, sender, a }) => assert.equal(sendPort(thread, sender.slot, a), 0),
      verify: ({ sleeper, b }) => assert.ok(kit.pending(sleeper, b) && kit.upcallPending(sleeper)),
    });
  });

  it("between poll on one masked port and an event", () => {
    toLastPoint({
      sleep: ({ sleeper, b }) => {
        kit.setMask(sleeper, b, true);
        assert.equal(kit.poll(sleeper, [b]), 0);
      },
      wake: ({ thread, sender, a }) => assert.equal(sendPort(thread, sender.slot, a), 0),
      verify: ({ sleeper, b }) => assert.ok(kit.pending(sleeper, b)),
    });
  });

  it("between poll on several ports and an event on any", () => {
    toLastPoint({
      sleep: ({ sleeper, b }) => {
        kit.setMask(sleeper, b, true);
        assert.equal(kit.poll(sleeper, [b, b, b]), 0);
      },
      wake: ({ thread, sender, a }) => assert.equal(sendPort(thread, sender.slot, a), 0),
      verify: ({ sleeper, hypervisor }) => assert.equal(hypervisor.events.pollMask[sleeper.slot], 0),
    });
  });

  it("between a wait on a word and the change of that word with a notify", () => {
    toLastPoint({
      sleep: ({ sleeper }) => {
        const result = guestWait32(sleeper.cpu, kit.SPARE, 0, Infinity);
        assert.ok(result === FUTEX_WOKEN || result === FUTEX_NOT_EQUAL, `${result}`);
      },
      wake: ({ thread, sleeper }) => {
        const other = createCpu(thread, sleeper.slot, 1);
        other.memory.writeU32(kit.SPARE, 1);
        const woken = guestNotify(other, kit.SPARE, 1);
        assert.ok(woken === 0 || woken === 1);
      },
      verify: ({ hypervisor, sleeper }) => assert.equal(hypervisor.vcpus.futexMask[sleeper.slot], 0),
      takesLocks: true,
    });
  });

  it("between block and a request to stop", () => {
    toLastPoint({
      sleep: ({ sleeper }) => assert.throws(() => kit.sched(sleeper, abi.SCHEDOP_block), ParkedError),
      wake: ({ thread, sleeper }) => crashDomain(thread, sleeper.slot, "asked to"),
      verify: ({ hypervisor, sleeper }) => assert.ok((hypervisor.vcpus.gate[sleeper.cpu.index]! & 1) === 0),
    });
  });

  it("between block and a pause, an event meanwhile and the end of the pause", () => {
    toLastPoint({
      sleep: ({ sleeper }) => assert.equal(kit.sched(sleeper, abi.SCHEDOP_block), 0),
      wake: ({ thread, sleeper, sender, a }) => {
        assert.equal(pauseDomain(thread, sleeper.slot), 0);
        assert.equal(sendPort(thread, sender.slot, a), 0);
        assert.equal(unpauseDomain(thread, sleeper.slot), 0);
      },
      verify: ({ sleeper, b }) => assert.ok(kit.pending(sleeper, b)),
      takesLocks: true,
    });
  });
});

describe("what two vCPUs do at once comes out as if one had been first", () => {
  /** Suspends `victim` before each of its atomic operations in turn and runs `adversary` there. */
  const atEachPoint = (
    victim: (about: World) => void,
    adversary: (about: World) => void,
    verify: (about: World, where: string) => void,
  ): void => {
    for (let at = 0, points = 1; at < points; at += 1) {
      const made = world();
      points = 0;
      const { held } = countLocks(made.hypervisor);
      let isInside = false;
      watchAtomics(
        () => victim(made),
        () => {
          if (isInside || held() > 0) return;
          if (points === at) {
            isInside = true;
            adversary(made);
            isInside = false;
          }
          points += 1;
        },
      );
      made.machine.check();
      verify(made, `point ${at}`);
    }
  };
  const isDown = (hypervisor: Hypervisor, index: number): boolean => (hypervisor.vcpus.flags[index]! & VCPU_DOWN) !== 0;
  const isHeld = (hypervisor: Hypervisor, index: number): boolean => (hypervisor.vcpus.gate[index]! & GATE_DOWN) !== 0;

  it("taking a vCPU down while it is brought up: it is held exactly when it is down", () => {
    atEachPoint(
      ({ sleeper, hypervisor }) => {
        kit.otherVcpu(sleeper, 1);
        assert.equal(takeDown(hypervisor, sleeper.slot, 1), 0);
      },
      ({ sleeper, thread }) => void bringUp(thread, thread.vcpus.index(sleeper.slot, 1)),
      ({ sleeper, hypervisor }, where) => {
        const index = hypervisor.vcpus.index(sleeper.slot, 1);
        assert.equal(isHeld(hypervisor, index), isDown(hypervisor, index), where);
      },
    );
  });

  it("bringing a vCPU up while it is taken down: it is held exactly when it is down", () => {
    atEachPoint(
      ({ sleeper, hypervisor }) => {
        kit.otherVcpu(sleeper, 1);
        takeDown(hypervisor, sleeper.slot, 1);
        bringUp(hypervisor, hypervisor.vcpus.index(sleeper.slot, 1));
      },
      ({ sleeper, thread }) => void takeDown(thread, sleeper.slot, 1),
      ({ sleeper, hypervisor }, where) => {
        const index = hypervisor.vcpus.index(sleeper.slot, 1);
        assert.equal(isHeld(hypervisor, index), isDown(hypervisor, index), where);
      },
    );
  });

  it("an event sent while the vcpu_info moves is found by the scan that the move asks for", () => {
    atEachPoint(
      ({ sleeper }) => {
        assert.equal(kit.vcpuOp(sleeper, abi.VCPUOP_register_vcpu_info, 0, kit.SPARE >>> 12, 0, 0, 0), 0);
      },
      ({ thread, sender, a }) => assert.equal(sendPort(thread, sender.slot, a), 0),
      ({ sleeper, b }, where) => {
        assert.ok(kit.pending(sleeper, b), where);
        assert.equal(kit.upcallPending(sleeper), true, where);
        assert.equal(kit.selector(sleeper), 0xffff_ffff, where);
      },
    );
  });

  it("a send that meets the close of its channel leaves ports that agree, whatever their order", () => {
    atEachPoint(
      ({ hypervisor, sender, a }) => assert.ok([0, -abi.EINVAL].includes(sendPort(hypervisor, sender.slot, a))),
      ({ sleeper, thread, b, sender }) => {
        const cpu = createCpu(thread, sleeper.slot, 0);
        pokeWords({ ...sleeper, cpu }, kit.ARG, b);
        assert.equal(kit.close({ ...sleeper, cpu }, b), 0);
        assert.equal(kit.allocUnbound({ ...sleeper, cpu }, sender.domid), b);
      },
      ({ sleeper, sender, a, b }, where) => {
        assert.equal(kit.status(sleeper, b).status, abi.EVTCHNSTAT_unbound, where);
        assert.equal(kit.status(sender, a).status, abi.EVTCHNSTAT_unbound, where);
      },
    );
  });
});
