import { EVTCHNSTAT_ipi, shared_info } from "@xenolith/abi";
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { plainWords, wasmWords } from "../src/atomic-words.ts";
import { DirectMap } from "../src/direct-map.ts";
import { clearPending, isPending, maskPort, setPending } from "../src/event-delivery.ts";
import { portWord } from "../src/event-table.ts";
import type { Hypervisor } from "../src/hypervisor.ts";
import { runningGuest } from "./events-kit.ts";
import { Machine } from "./machine.ts";

const FRAME_BYTES = 4096;
const BANK_FRAMES = 2 ** 20;
const BANK_COUNT = 3;
/** Frames below and above 2 GiB and at the end of a bank, in the first one and beyond 4 and 8 GiB. */
const FRAMES = [0, 1, 2 ** 19 - 1, 2 ** 19, 2 ** 20 - 1].flatMap((frame) => [
  frame,
  frame + BANK_FRAMES,
  frame + 2 * BANK_FRAMES,
]);

/** Banks as large as production's; nearly none of their pages is ever touched. */
const memories = Array.from(
  { length: BANK_COUNT },
  () => new WebAssembly.Memory({ initial: 65_536, maximum: 65_536, shared: true }),
);
const banks = memories.map(({ buffer }) => {
  assert(buffer instanceof SharedArrayBuffer);
  return buffer;
});
const kinds = {
  "atomics of a WebAssembly memory": memories.map(wasmWords),
  "atomics of any buffer": banks.map(plainWords),
};

/** The 32-bit words of frame `mfn`, found in whole numbers of any size. */
const wordsOf = (mfn: number): Int32Array => {
  const machine = BigInt(mfn) * BigInt(FRAME_BYTES);
  const bankBytes = BigInt(BANK_FRAMES) * BigInt(FRAME_BYTES);
  return new Int32Array(banks[Number(machine / bankBytes)]!, Number(machine % bankBytes), FRAME_BYTES / 4);
};

describe("events of a domain whose shared_info is a high frame", () => {
  for (const [kind, words] of Object.entries(kinds)) {
    it(`become pending in that frame and nowhere else, by ${kind}`, () => {
      const machine = new Machine();
      const { slot, cpu } = runningGuest(machine);
      const directMap = new DirectMap(banks, undefined, words);
      const hypervisor: Hypervisor = Object.create(machine.hypervisor, { directMap: { value: directMap } });
      // Nobody is told: the test looks at the bits alone.
      hypervisor.vcpus.vcpuInfo[cpu.index] = 0;
      for (const mfn of FRAMES) {
        hypervisor.domains.sharedInfo[slot] = mfn + 1;
        for (const port of [1, 31, 32, 1023]) {
          hypervisor.events.publish(slot, port, portWord(EVTCHNSTAT_ipi, 0, 0));
          setPending(hypervisor, slot, port);
          maskPort(hypervisor, slot, port);
          const expected = new Int32Array(FRAME_BYTES / 4);
          for (const { offset } of [shared_info.evtchn_pending, shared_info.evtchn_mask]) {
            expected[offset / 4 + (port >>> 5)] = 1 << (port & 31);
          }
          assert.deepEqual(wordsOf(mfn), expected, `frame ${mfn}, port ${port}`);
          assert.ok(isPending(hypervisor, slot, port));
          clearPending(hypervisor, slot, port);
          assert.ok(!isPending(hypervisor, slot, port));
          wordsOf(mfn).fill(0);
          for (const other of FRAMES) assert.ok(wordsOf(other).every((word) => word === 0));
        }
      }
    });
  }
});
