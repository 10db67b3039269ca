/** What a domain is put together from. Not for users of the library. */
import type { AddressSpace } from "./address-space-pool.ts";
import type { ConsoleStream } from "./console-stream.ts";
import type { HostContext } from "./host-context.ts";
import type { BootImage } from "./image.ts";
import type { OfferedEntry } from "./offered-functions.ts";
import type { DomainStdio } from "./stdio.ts";
import type { DescriptorTable } from "./wasi/index.ts";
import type { WasiConfiguration } from "./wasi-setup.ts";

/** Everything that a domain has besides its row in the hypervisor's tables. */
export interface DomainParts {
  readonly context: HostContext;
  readonly slot: number;
  readonly name: string;
  readonly image: BootImage;
  readonly space: AddressSpace;
  readonly stdio: DomainStdio;
  readonly console: ConsoleStream;
  readonly wasi: WasiConfiguration;
  /** Functions that the calling program offers. */
  readonly offered: readonly OfferedEntry[];
  readonly descriptors: DescriptorTable;
  /** Address of start_info, for a Xen-style guest. */
  readonly startInfo: number;
  /** The domain is gone. */
  readonly onDestroyed: () => void;
}
