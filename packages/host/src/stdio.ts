/**
 * Standard streams of a domain, seen from the control domain. A stream is inherited (the vCPU uses the process's own
 * descriptor), piped (bytes go through a ring in shared memory, with back-pressure) or ignored (empty input, output
 * thrown away).
 */
import { XenolithError } from "@xenolith/abi";
import { ByteRing, RING_FOOTPRINT_BYTES } from "./byte-ring.ts";
import { Filetype } from "./wasi/index.ts";

/** What stands behind a standard stream. */
export type StdioMode = "ignore" | "inherit" | "pipe";

/** Modes of stdin, stdout and stderr. */
export interface StdioModes {
  readonly stdin?: StdioMode;
  readonly stdout?: StdioMode;
  readonly stderr?: StdioMode;
}

/** What a vCPU thread needs to know of the streams. */
export interface StdioConfiguration {
  /** Modes of descriptors 0, 1 and 2. */
  readonly modes: readonly [StdioMode, StdioMode, StdioMode];
  /** Three rings, one after the other, if any stream is piped. */
  readonly rings: SharedArrayBuffer | undefined;
  /** Word that holds the tag of the thread that looks at the process's own input and takes from it, or 0. */
  readonly inputLock: SharedArrayBuffer;
}

/** One for all domains: they share the process's standard input. */
const inputLock = new SharedArrayBuffer(4);

/** A guest's output as it comes. Iterating takes the bytes; they are kept for one reader only. */
export interface GuestOutput extends AsyncIterable<Uint8Array> {
  /** Everything until the stream ends, as UTF-8 text. */
  text(): Promise<string>;
}

const MODES: readonly string[] = ["ignore", "inherit", "pipe"];

/** Settings for the vCPUs, from what the caller asked for. Without a wish input is empty and output is inherited. */
export const stdioConfiguration = (modes: StdioModes): StdioConfiguration => {
  const chosen = [modes.stdin ?? "ignore", modes.stdout ?? "inherit", modes.stderr ?? "inherit"] as const;
  for (const mode of chosen) {
    if (!MODES.includes(mode)) {
      throw new XenolithError("INVALID_ARGUMENT", `stdio mode ${JSON.stringify(mode)} is none of ${MODES.join(", ")}`);
    }
  }
  const piped = chosen.includes("pipe");
  return { modes: chosen, rings: piped ? new SharedArrayBuffer(3 * RING_FOOTPRINT_BYTES) : undefined, inputLock };
};

/** What a stream is to the guest, as a WASI `Filetype`. */
export const filetypeOf = (configuration: StdioConfiguration, stream: number): number => {
  const mode = configuration.modes[stream];
  // Loaded on first use: vCPU threads import this module.
  const isDevice = mode === "ignore" || (mode === "inherit" && process.getBuiltinModule("node:tty").isatty(stream));
  return isDevice ? Filetype.CHARACTER_DEVICE : Filetype.UNKNOWN;
};

/** The ring behind stream 0, 1 or 2. */
export const ringOf = (configuration: StdioConfiguration, stream: number): ByteRing | undefined =>
  configuration.rings !== undefined && configuration.modes[stream] === "pipe"
    ? new ByteRing(configuration.rings, stream * RING_FOOTPRINT_BYTES)
    : undefined;

/** The control domain's ends of a domain's streams. */
export class DomainStdio {
  readonly configuration: StdioConfiguration;
  readonly stdout: OutputStream;
  readonly stderr: OutputStream;
  readonly stdin: InputStream;

  /** Wakes the vCPUs that sleep for bytes or room; set once there are any. */
  wakeVcpus: () => void = () => {};

  constructor(modes: StdioModes) {
    this.configuration = stdioConfiguration(modes);
    const wakeVcpus = (): void => this.wakeVcpus();
    this.stdin = new InputStream(ringOf(this.configuration, 0), wakeVcpus);
    this.stdout = new OutputStream(ringOf(this.configuration, 1), wakeVcpus);
    this.stderr = new OutputStream(ringOf(this.configuration, 2), wakeVcpus);
  }

  /** The vCPUs may have written or read: lets readers and writers go on. */
  poke(): void {
    this.stdin.poke();
    this.stdout.poke();
    this.stderr.poke();
  }

  /** No vCPU writes any more. */
  finish(): void {
    this.stdin.finish();
    this.stdout.finish();
    this.stderr.finish();
  }

  /** A vCPU thread ended in the middle of something. */
  recover(tag: number): void {
    for (let stream = 0; stream < 3; stream += 1) ringOf(this.configuration, stream)?.recover(tag);
    Atomics.compareExchange(new Int32Array(this.configuration.inputLock), 0, tag, 0);
  }
}

/** Output of a guest. Empty when the stream is not piped. */
export class OutputStream implements GuestOutput {
  readonly #ring: ByteRing | undefined;
  readonly #wakeVcpus: () => void;
  #waiting: (() => void) | undefined;

  constructor(ring: ByteRing | undefined, wakeVcpus: () => void) {
    this.#ring = ring;
    this.#wakeVcpus = wakeVcpus;
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<Uint8Array, void, undefined> {
    const ring = this.#ring;
    if (ring === undefined) return;
    for (;;) {
      const { closed } = ring;
      const chunk = this.#take(ring);
      if (chunk !== undefined) yield chunk;
      else if (closed) return;
      else await new Promise<void>((resolve) => (this.#waiting = resolve));
    }
  }

  async text(): Promise<string> {
    const decoder = new TextDecoder();
    let text = "";
    for await (const chunk of this) text += decoder.decode(chunk, { stream: true });
    return text + decoder.decode();
  }

  poke(): void {
    const waiting = this.#waiting;
    this.#waiting = undefined;
    waiting?.();
  }

  finish(): void {
    this.#ring?.close();
    this.poke();
  }

  #take(ring: ByteRing): Uint8Array | undefined {
    const count = ring.readableBytes;
    if (count === 0) return undefined;
    const chunk = new Uint8Array(count);
    ring.read(chunk);
    if (ring.takeWaiter()) this.#wakeVcpus();
    return chunk;
  }
}

/** Input of a guest. */
export class InputStream {
  readonly #ring: ByteRing | undefined;
  readonly #wakeVcpus: () => void;
  #waiting: (() => void)[] = [];
  #finished = false;

  constructor(ring: ByteRing | undefined, wakeVcpus: () => void) {
    this.#ring = ring;
    this.#wakeVcpus = wakeVcpus;
  }

  /**
   * Gives the guest bytes to read; strings are sent as UTF-8. Resolves when the guest's buffer has taken all of them.
   *
   * @throws XenolithError `DOMAIN_STATE` when the stream is not piped, was ended, or the domain is gone.
   */
  async write(bytes: Uint8Array | string): Promise<void> {
    let rest = typeof bytes === "string" ? new TextEncoder().encode(bytes) : bytes;
    while (rest.length > 0) {
      const ring = this.#writable();
      rest = rest.subarray(ring.write(rest));
      if (ring.takeWaiter()) this.#wakeVcpus();
      if (rest.length > 0) await new Promise<void>((resolve) => this.#waiting.push(resolve));
    }
  }

  /** No more bytes will come: the guest reads the end of its input. */
  end(): void {
    this.#ring?.close();
    this.#wakeVcpus();
  }

  poke(): void {
    if (this.#waiting.length === 0 || (this.#ring?.writableBytes === 0 && !this.#finished)) return;
    for (const resolve of this.#waiting.splice(0)) resolve();
  }

  finish(): void {
    this.#finished = true;
    this.#ring?.close();
    this.poke();
  }

  #writable(): ByteRing {
    if (this.#ring === undefined) throw new XenolithError("DOMAIN_STATE", "the domain's stdin is not piped");
    if (this.#finished) throw new XenolithError("DOMAIN_STATE", "the domain no longer reads its stdin");
    if (this.#ring.closed) throw new XenolithError("DOMAIN_STATE", "the domain's stdin was ended before");
    return this.#ring;
  }
}
