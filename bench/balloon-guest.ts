/** The guests of the balloon's benches, and what the control domain does to the pages that their library keeps. */
import { readFileSync } from "node:fs";
import { P2M_RAM, p2mType } from "@xenolith/core";
import type { Domain, Host } from "@xenolith/host";

type Compile = (
  sources: Record<string, string>,
  options?: { readonly wasi?: boolean; readonly flags?: readonly string[] },
) => Promise<Uint8Array>;

/** Bytes of a frame. */
export const FRAME_BYTES = 4096;
/** Where the library keeps pages, as far as this bench uses it. */
const ARENA_FIRST_GFN = 0x8_0000;
const ARENA_FRAMES = 0x8000;

/** Both guests, before the first one with atomics makes V8 compile everything with its slow compiler. */
export const compileBalloons = async (): Promise<readonly Uint8Array<ArrayBuffer>[]> => {
  const { compileGuest } = (await import(new URL("../../guest/xencc.mjs", import.meta.url).href)) as {
    compileGuest: Compile;
  };
  const sources = { "balloon.c": readFileSync(new URL("../guests/balloon.c", import.meta.url), "utf8") };
  const reactor = await compileGuest(sources, { wasi: true, flags: ["-mexec-model=reactor"] });
  return [new Uint8Array(reactor), new Uint8Array(await compileGuest(sources))];
};

/** Touches every page that the guest's library holds, where the control domain sees them; they stay zero. */
export const touchKept = ({ hypervisor }: Host, domain: Domain): void => {
  const { domains, p2m } = hypervisor;
  const slot = domains.slotOf(domain.domid);
  const zero = new Uint8Array(1);
  for (let gfn = ARENA_FIRST_GFN; gfn < ARENA_FIRST_GFN + ARENA_FRAMES; gfn += 1)
    if (p2mType(p2m.get(slot, gfn)) === P2M_RAM) domain.write(gfn * FRAME_BYTES, zero);
};
