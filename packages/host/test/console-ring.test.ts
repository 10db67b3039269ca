import assert from "node:assert/strict";
import { after, it } from "node:test";
import { xencons_interface as layout } from "@xenolith/abi";
import { CONSOLE_PAGE, RingGuest } from "./ring-guest.ts";
import { assertClean, eventually, guest, openHost } from "./support.ts";

const host = await openHost({ warmVcpuCount: 0 });
after(() => host.close());

/** The guest prints as its driver would. */
const print = async (ringGuest: RingGuest, text: string): Promise<void> => {
  for (const byte of new TextEncoder().encode(text)) {
    const producer = ringGuest.word(layout.out_prod.offset, CONSOLE_PAGE);
    const used = (): number => (producer - ringGuest.word(layout.out_cons.offset, CONSOLE_PAGE)) >>> 0;
    if (used() >= 2048) {
      ringGuest.notifyConsole();
      await eventually(() => used() < 2048);
    }
    ringGuest.domain.write(CONSOLE_PAGE + layout.out.offset + (producer % 2048), Uint8Array.of(byte));
    ringGuest.setWord(layout.out_prod.offset, producer + 1, CONSOLE_PAGE);
  }
  ringGuest.notifyConsole();
};

/** What was typed, taken out of the ring as far as `count` bytes. */
const takeTyped = (ringGuest: RingGuest, count: number): string => {
  const bytes = new Uint8Array(count);
  for (let at = 0; at < count; at += 1) {
    const consumer = ringGuest.word(layout.in_cons.offset, CONSOLE_PAGE);
    assert.notEqual(consumer, ringGuest.word(layout.in_prod.offset, CONSOLE_PAGE));
    bytes[at] = ringGuest.domain.read(CONSOLE_PAGE + layout.in.offset + (consumer % 1024), 1)[0]!;
    ringGuest.setWord(layout.in_cons.offset, consumer + 1, CONSOLE_PAGE);
  }
  return new TextDecoder().decode(bytes);
};

it("what a guest prints into its ring comes out of the console, filtered, to the last byte", async () => {
  const ringGuest = await RingGuest.create(host);
  const text = ringGuest.domain.console.text();
  const long = Array.from({ length: 300 }, (_, line) => `line ${line} of more than the ring holds`).join("\n");
  await print(ringGuest, `${long}\nescape \u001b[31m here\n`);
  await print(ringGuest, "no end of line");
  await ringGuest.domain.destroy();
  assert.equal(await text, `${long}\nescape [31m here\nno end of line`);
  assertClean(host);
});

it("what is typed comes into the ring, more than it holds as the guest takes it", async () => {
  const ringGuest = await RingGuest.create(host);
  await ringGuest.domain.console.write("hello\n");
  assert.equal(takeTyped(ringGuest, 6), "hello\n");
  const long = "0123456789".repeat(250);
  let isDone = false;
  const writing = ringGuest.domain.console.write(new TextEncoder().encode(long)).then(() => (isDone = true));
  let taken = "";
  while (taken.length < long.length) {
    const typed = (): number =>
      (ringGuest.word(layout.in_prod.offset, CONSOLE_PAGE) - ringGuest.word(layout.in_cons.offset, CONSOLE_PAGE)) >>> 0;
    await eventually(() => typed() > 0);
    assert.equal(isDone && typed() + taken.length < long.length, false);
    taken += takeTyped(ringGuest, typed());
    ringGuest.notifyConsole();
  }
  await writing;
  assert.equal(taken, long);
  await ringGuest.domain.destroy();
});

it("impossible indices move nothing, and possible ones go on from there", async () => {
  const ringGuest = await RingGuest.create(host);
  const text = ringGuest.domain.console.text();
  for (const index of [2049, 2 ** 31, 2 ** 32 - 1]) {
    ringGuest.setWord(layout.out_prod.offset, index, CONSOLE_PAGE);
    ringGuest.setWord(layout.in_cons.offset, index, CONSOLE_PAGE);
    ringGuest.notifyConsole();
    await ringGuest.domain.console.write("").then(() => new Promise((resolve) => setImmediate(resolve)));
    assert.equal(ringGuest.word(layout.out_cons.offset, CONSOLE_PAGE), 0);
    assert.equal(ringGuest.word(layout.in_prod.offset, CONSOLE_PAGE), 0);
  }
  ringGuest.setWord(layout.in_cons.offset, 2 ** 31, CONSOLE_PAGE);
  const stuck = ringGuest.domain.console.write("never taken");
  ringGuest.setWord(layout.out_prod.offset, 0, CONSOLE_PAGE);
  await print(ringGuest, "fine\n");
  await Promise.all([assert.rejects(stuck, { code: "DOMAIN_STATE" }), ringGuest.domain.destroy()]);
  assert.equal(await text, "fine\n");
  await assert.rejects(ringGuest.domain.console.write("x"), { code: "DOMAIN_STATE" });
  assertClean(host);
});

it("a guest without a console ring cannot be typed to", async () => {
  const image = guest(`(module (memory (export "memory") 1) (func (export "_start")))`);
  await using domain = await host.createDomain({ image });
  await assert.rejects(domain.console.write("x"), { code: "DOMAIN_STATE", message: /no console ring/ });
});
