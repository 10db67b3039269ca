import { branch, localGet, unreachable } from "./assembler.ts";
import type { Helper } from "./helper-set.ts";

/** `memory.size`: what the hypervisor says. */
export const memorySize: Helper = {
  name: "xenolith.memory.size",
  params: [],
  results: ["i32"],
  locals: [],
  body: (link) => link.service("memory_size"),
};

/** `memory.grow`: populates frames under the domain's own limit. */
export const memoryGrow: Helper = {
  name: "xenolith.memory.grow",
  params: ["i32"],
  results: ["i32"],
  locals: [],
  body: (link) => [localGet(0), link.service("memory_grow")],
};

/** `memory.init`: (destination, offset in the segment, length, segment). The host holds the segments. */
export const memoryInit: Helper = {
  name: "xenolith.memory.init",
  params: ["i32", "i32", "i32", "i32"],
  results: [],
  locals: [],
  body: (link) =>
    branch([localGet(3), localGet(0), localGet(1), localGet(2), link.service("memory_init")], unreachable),
};

/** `data.drop`: (segment). */
export const dataDrop: Helper = {
  name: "xenolith.data.drop",
  params: ["i32"],
  results: [],
  locals: [],
  body: (link) => [localGet(0), link.service("data_drop")],
};

/** Called by loop headers when their counter reaches zero; the host says when to come again. */
export const poll: Helper = {
  name: "xenolith.poll",
  params: [],
  results: [],
  locals: [],
  body: (link) => [link.service("poll"), link.setPollCounter()],
};
