// SPDX-License-Identifier: Apache-2.0
/** A plugin as a domain: called like a library, bounded in memory and time. */
import assert from "node:assert/strict";
import { Host } from "@xenolith/host";
import wabt from "wabt";

const PLUGIN = `(module
  (memory (export "memory") 1)
  (func (export "add") (param i32 i32) (result i32) (i32.add (local.get 0) (local.get 1)))
  (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))
  (func (export "think") (loop $for_ever (br $for_ever))))`;

const assembler = await wabt();
const image = assembler.parseWat("plugin.wat", PLUGIN).toBinary({}).buffer;

const host = await Host.open();
try {
  const domain = await host.createDomain({ image, memoryBytesMax: 2 ** 20 });
  await domain.start();
  assert.equal(await domain.call("add", 2, 40), 42);
  assert.equal(await domain.call("grow", 15), 1);
  assert.equal(await domain.call("grow", 1), -1);
  console.log("added; grew to its limit and no further:", domain.stats());
  await assert.rejects(domain.callWith({ timeoutMs: 100 }, "think"), { code: "TIMEOUT" });
  console.log("ended while it thought for ever:", await domain.exited);
} finally {
  await host.close();
}
