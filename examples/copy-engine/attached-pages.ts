/**
 * The pages that a driver lets its engine reach, by bus address. The bus is one for all devices of the host: what belongs
 * to another driver's engine is not found here, and that is what keeps drivers apart.
 */
import { EINVAL, ENOENT, ENOMEM, ENOSPC, XenolithError } from "@xenolith/abi";
import type { Host, MappedGrants } from "@xenolith/host";

/** Pages of one driver at most. */
const PAGES_MAX = 256;

/** The pages of one driver. */
export class AttachedPages {
  readonly #host: Host;
  readonly #domid: number;
  /** By the bus address of the first page. */
  readonly #runs = new Map<number, MappedGrants>();
  #count = 0;

  constructor(host: Host, domid: number) {
    this.#host = host;
    this.#domid = domid;
  }

  /** Maps granted pages into the DMA view, all or none. Returns their bus address, or a negative errno. */
  attach(refs: readonly number[], isWritable: boolean, isRevokable: boolean): number {
    if (this.#count + refs.length > PAGES_MAX) return -ENOSPC;
    try {
      const options = { device: "only", readOnly: !isWritable, revokable: isRevokable } as const;
      const run = this.#host.grants.map(this.#domid, refs, options);
      this.#runs.set(run.deviceAddress!, run);
      this.#count += refs.length;
      return run.deviceAddress!;
    } catch (error) {
      // The driver named something that it cannot give; or the machine is short of something. Both are its own affair.
      if (error instanceof XenolithError) return error.code === "MEMORY_EXHAUSTED" ? -ENOMEM : -EINVAL;
      throw error;
    }
  }

  /** Unmaps the run that begins at `address`. 0, or -ENOENT. */
  detach(address: number): number {
    const run = this.#runs.get(address);
    if (run === undefined) return -ENOENT;
    this.#runs.delete(address);
    this.#count -= run.refs.length;
    run.unmap();
    return 0;
  }

  /** The run that has all of these bytes, for writing if that is wanted; undefined: there is none. */
  find(address: number, lengthBytes: number, isWrite: boolean): MappedGrants | undefined {
    for (const [first, run] of this.#runs) {
      const offset = address - first;
      const isInside = offset >= 0 && lengthBytes <= run.deviceBytes!.length - offset;
      if (isInside) return isWrite && run.isReadOnly ? undefined : run;
    }
    return undefined;
  }

  /** Unmaps everything. */
  clear(): void {
    for (const address of [...this.#runs.keys()]) this.detach(address);
  }
}
