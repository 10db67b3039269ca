/**
 * An exception inside the hypervisor, which would be our mistake. Guests may catch what JavaScript throws, so one that got
 * to see it could go on with its gate and locks held: its domain ends instead, and everybody else goes on.
 */
import { __HYPERVISOR_event_channel_op, EVTCHNOP_send, EVTCHNOP_status, EVTCHNOP_unmask } from "@xenolith/abi";
import { allocateUnbound, bindInterdomain } from "@xenolith/core";
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Domain, Host } from "../src/index.ts";
import { eventually, guest, openHost, run } from "./support.ts";

/** Where the argument of its calls stands: in page 3. */
const ARGUMENT = 0x3000;

/** Loops, catching everything, over a call; words 0 and 4 count what was caught and turns. */
const calling = (command: number): Uint8Array =>
  guest(`(module
    (import "xen" "hypercall" (func $hypercall (param i32 i32 i32 i32 i32 i32) (result i32)))
    (memory (export "memory") 1)
    (data (i32.const ${ARGUMENT}) "\\01\\00")
    (func (export "_start")
      (loop $again
        (try
          (do (drop (call $hypercall (i32.const ${__HYPERVISOR_event_channel_op}) (i32.const ${command}) (i32.const ${ARGUMENT})
            (i32.const 0) (i32.const 0) (i32.const 0))))
          (catch_all (i32.store (i32.const 0) (i32.const 1))))
        (i32.store (i32.const 4) (i32.add (i32.load (i32.const 4)) (i32.const 1)))
        (br $again))))`);

/** Frame numbers where no bank is: what the hypervisor reads there is undefined, and using it throws. */
const NO_FRAME = 0xfff_fffe;
/** What is spoilt, so that a guest's call of the hypervisor throws; the result puts it right. */
const faults = {
  "under a lock": {
    image: calling(EVTCHNOP_status),
    spoil: (host: Host, domain: Domain) => {
      const { p2m, domains } = host.hypervisor;
      const at = p2m.at(domains.slotOf(domain.domid), ARGUMENT >>> 12);
      const entry = p2m.entries[at]!;
      p2m.entries[at] = (NO_FRAME << 4) | (entry & 15);
      return () => void (p2m.entries[at] = entry);
    },
  },
  "in a call that takes no lock": {
    image: calling(EVTCHNOP_send),
    spoil: (host: Host, domain: Domain, peer: Domain) => {
      const { hypervisor } = host;
      const { domains } = hypervisor;
      const peerSlot = domains.slotOf(peer.domid);
      const peerFrame = domains.sharedInfo[peerSlot]!;
      // Of its first port, whose other end is a domain that does nothing itself.
      const port = allocateUnbound(hypervisor, peerSlot, domain.domid);
      assert.equal(bindInterdomain(hypervisor, domains.slotOf(domain.domid), peer.domid, port), 1);
      domains.sharedInfo[peerSlot] = NO_FRAME;
      return () => void (domains.sharedInfo[peerSlot] = peerFrame);
    },
  },
} as const;

for (const [where, { image, spoil }] of Object.entries(faults)) {
  test(`an exception inside the hypervisor ${where} ends the guest that would catch it, and nobody else (W06)`, async () => {
    await using host = await openHost();
    await using other = await run(host, calling(EVTCHNOP_unmask));
    await using domain = await run(host, image);
    await using peer = await host.createDomain({ image });
    const wordOf = (of: Domain, at: number): number => new DataView(of.read(at, 4).buffer).getUint32(0, true);
    await eventually(() => wordOf(domain, 4) > 0);
    const repair = spoil(host, domain, peer);
    const { reason } = await domain.exited;
    repair();
    assert.match(reason ?? "", /^internal error: TypeError/);
    assert.equal(wordOf(domain, 0), 0, "it caught nothing");
    const turns = wordOf(domain, 4);
    const before = wordOf(other, 4);
    await eventually(() => wordOf(other, 4) !== before);
    assert.equal(wordOf(domain, 4), turns, "it ran no further");
    await domain.destroy();
    await other.destroy();
    await peer.destroy();
    const findings = host.audit();
    assert.equal(findings.length, 1, "the fault, and nothing that it left behind");
    assert.match(findings[0] ?? "", /vCPU 0: TypeError/);
  });
}
