/**
 * What tests of secret memory share: a guest's secret, and where it has it mapped.
 */
import assert from "node:assert/strict";
import { createSecretExtent, mapSecret } from "../src/index.ts";
import type { TestHypervisor } from "../src/index.ts";
import { PAGE } from "./memory-fixture.ts";

/** A domain, as far as these tests care. */
interface Owner {
  readonly slot: number;
}

/** A secret of the control domain's making. */
export interface TestSecret {
  readonly extent: number;
  readonly handle: number;
  /** What is in it, as the control domain's kernel has it. */
  readonly bytes: Uint8Array;
}

let lastHandle = 100;

/** Makes a secret for a domain. The first byte of each page is `tag`. */
export const makeSecret = (
  { hypervisor, mmu }: Pick<TestHypervisor, "hypervisor" | "mmu">,
  owner: Owner,
  pages: number,
  tag = 0,
): TestSecret => {
  lastHandle += 1;
  const handle = lastHandle;
  const bytes = mmu.addSecret(handle, pages);
  for (let page = 0; page < pages; page += 1) bytes[page * PAGE] = tag;
  const extent = createSecretExtent(hypervisor, owner.slot, pages, handle);
  assert.ok(extent > 0, `createSecretExtent: ${extent}`);
  return { extent, handle, bytes };
};

/** Maps pages of a secret; returns the mapping or an errno. */
export const mapPages = (
  { hypervisor }: Pick<TestHypervisor, "hypervisor">,
  { extent }: TestSecret,
  guest: Owner,
  gfn: number,
  [page, count]: readonly [page: number, count: number],
  isWritable = true,
): number => mapSecret(hypervisor, extent, { slot: guest.slot, gfn, page, count, isWritable });
