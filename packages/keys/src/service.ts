import { XenolithError } from "@xenolith/abi";
import { addKey, update } from "./add-operations.ts";
import * as attributes from "./attribute-operations.ts";
import { audit } from "./audit.ts";
import { instantiate, reject, type Refusal } from "./build-operations.ts";
import { type Clock, systemClock } from "./clock.ts";
import { Collector } from "./collector.ts";
import type { UpcallOptions } from "./construction.ts";
import { ENOKEY, EOPNOTSUPP } from "./errno.ts";
import type { ErrorPriority } from "./error-priority.ts";
import type { KeyType } from "./key-type.ts";
import { changeLimit, type KeyLimits, limitsFrom } from "./limits.ts";
import { OperationRunner } from "./operation-runner.ts";
import { MemoryPayloadStore, type PayloadStore, type PayloadTarget } from "./payload-store.ts";
import type { Answer } from "./pending.ts";
import { procKeys, procKeyUsers } from "./proc-views.ts";
import type { Process, ProcessIdentity, ProcessIds } from "./process.ts";
import * as processes from "./process-life.ts";
import * as own from "./process-operations.ts";
import { requestKey } from "./request-operation.ts";
import * as rings from "./ring-operations.ts";
import { KeyState } from "./state.ts";
import { systemRandom } from "./system-random.ts";
import type { KeyText } from "./text.ts";
import { TrustedInterface } from "./trusted-interface.ts";
import { asymmetricType } from "./type-asymmetric.ts";
import { keyringType } from "./type-keyring.ts";
import { registerType, unregisterType } from "./type-registry.ts";
import { bigKeyType, logonType, userType } from "./type-user.ts";
import type { UpcallActor } from "./upcall.ts";

/** What a service can be told. Everything has a default. */
export interface KeyServiceOptions {
  /** The machine's clock by default. */
  readonly clock?: Clock;
  /** 32 random bits; from the operating system by default. */
  readonly random?: () => number;
  /** Where payloads are kept; in ordinary memory by default. */
  readonly payloads?: PayloadStore;
  /** Who starts helpers; without it every request for a key that is not there fails with -ENOENT. */
  readonly upcall?: UpcallActor;
  /** Milliseconds after which a helper is given up. 0, the default: never, as in the kernel. */
  readonly upcallTimeoutMs?: number;
  /** Limits that differ from a Linux kernel's. */
  readonly limits?: Partial<KeyLimits>;
  /** Which error of several a search answers with; "documented" by default. */
  readonly errorPriority?: ErrorPriority;
  /** Whether a helper that waits for the key that it builds gets -EDEADLK instead of waiting for ever. True by default. */
  readonly detectSelfWait?: boolean;
  /** Types of keys beside those of the service. */
  readonly types?: readonly KeyType[];
}

/** What `capabilities` tells, as keyctl_capabilities(3) has it. Diffie-Hellman, public keys and watches are not offered. */
const CAPABILITIES = Uint8Array.of(
  0x01 /* this query */ |
    0x02 /* persistent keyrings */ |
    0x10 /* big_key */ |
    0x20 /* invalidate */ |
    0x40 /* restrict */ |
    0x80 /* move */,
  0x01 /* names of keyrings are the service's own */ | 0x02 /* so are domains */,
);

/** What a service has at the moment. */
export interface KeyStatistics {
  readonly keys: number;
  readonly users: number;
  readonly processes: number;
  readonly payloads: number;
  /** Operations that wait for a key. */
  readonly waits: number;
}

const UPCALL_TIMEOUT_MAX_MS = 2 ** 31 - 1;

/**
 * Key retention: keys, keyrings, permissions, quotas and requests, as keyctl(2), add_key(2) and request_key(2) have them.
 *
 * Every operation names the process that asks, and answers a number: 0 or more, or a negated error number of Linux. One
 * that has to wait for a key under construction answers a `Pending` instead. Nothing is thrown for what a process did.
 *
 * Source: keyrings(7), request-key(7), keyctl(2), and Linux 6.18 where they leave it open.
 */
export class KeyService implements Disposable {
  readonly #state: KeyState;
  readonly #collector: Collector;
  readonly #runner: OperationRunner;
  readonly #upcalls: UpcallOptions;
  /** What code in the same process may do beyond what callers can. */
  readonly trusted: TrustedInterface;

  /** Throws `INVALID_ARGUMENT` for a limit or timeout out of range, or two types of one name. */
  constructor(options: KeyServiceOptions = {}) {
    const timeoutMs = options.upcallTimeoutMs ?? 0;
    if (!Number.isInteger(timeoutMs) || timeoutMs < 0 || timeoutMs > UPCALL_TIMEOUT_MAX_MS) {
      throw new XenolithError(
        "INVALID_ARGUMENT",
        `upcallTimeoutMs ${timeoutMs} is not between 0 and ${UPCALL_TIMEOUT_MAX_MS}`,
      );
    }
    this.#state = new KeyState({
      clock: options.clock ?? systemClock,
      random: options.random ?? systemRandom(),
      payloads: options.payloads ?? new MemoryPayloadStore(),
      limits: limitsFrom(options.limits),
      errorPriority: options.errorPriority ?? "documented",
      detectsSelfWait: options.detectSelfWait ?? true,
    });
    this.#collector = new Collector(this.#state);
    this.#runner = new OperationRunner(this.#state, this.#collector);
    this.#upcalls = { actor: options.upcall, timeoutMs };
    this.trusted = new TrustedInterface(this.#state, this.#runner, this.#upcalls);
    for (const type of [keyringType, userType, logonType, bigKeyType, asymmetricType, ...(options.types ?? [])]) {
      const refusal = this.registerType(type);
      if (refusal < 0)
        throw new XenolithError("INVALID_ARGUMENT", `type ${type.name}: its name is taken or not a valid one`);
    }
  }

  // Processes.

  /** A record for a process that the service does not know yet. */
  attach(identity: ProcessIdentity): Process {
    return processes.attach(this.#state, identity);
  }

  /** The record of a child: session keyring, authority and settings are its parent's. */
  fork(parent: Process, { pid }: { readonly pid: number }): Process {
    this.#runner.check(parent);
    return processes.fork(this.#state, parent, pid);
  }

  /** The record of another thread: as a child, with the same process keyring and, if this one has any, a thread keyring. */
  newThread(process: Process, { pid }: { readonly pid: number }): Process {
    this.#runner.check(process);
    return processes.newThread(this.#state, process, pid);
  }

  /** The process executes another program: its thread and process keyrings go. */
  exec(process: Process): void {
    this.#runner.run(process, () => {
      processes.exec(this.#state, process);
      return 0;
    });
  }

  /** The process, or thread, is gone. Its record means nothing any more. */
  exit(process: Process): void {
    processes.exit(this.#state, process);
    this.#runner.tidy();
  }

  /** The process has other users and groups. */
  setIds(process: Process, ids: ProcessIds & { readonly sysAdmin?: boolean; readonly setUid?: boolean }): void {
    this.#runner.check(process);
    processes.setIds(process, ids);
  }

  // Keys.

  /** add_key(2): the serial of the new or updated key. A null description is for types that propose one. */
  addKey(
    process: Process,
    type: KeyText,
    description: KeyText | null,
    payload: Uint8Array | null,
    ring: number,
  ): Answer {
    return this.#runner.run(process, () => addKey(this.#state, process, { type, description, payload, ring }));
  }

  /** request_key(2): the serial of a key that is found, or built by a helper that is told the callout; without one only found. */
  requestKey(
    process: Process,
    type: KeyText,
    description: KeyText,
    callout: KeyText | null,
    destination: number,
  ): Answer {
    const request = { type, description, callout, destination };
    return this.#runner.run(process, () => requestKey(this.#state, process, request, this.#upcalls));
  }

  /** keyctl_get_keyring_ID(3). */
  getKeyringId(process: Process, id: number, create: boolean): Answer {
    return this.#runner.run(process, () => own.getKeyringId(this.#state, process, id, create));
  }

  /** keyctl_join_session_keyring(3): null for a new keyring without a name. */
  joinSession(process: Process, name: KeyText | null): Answer {
    return this.#runner.run(process, () => own.joinSession(this.#state, process, name));
  }

  /** keyctl_update(3). */
  update(process: Process, id: number, payload: Uint8Array | null): Answer {
    return this.#runner.run(process, () => update(this.#state, process, id, payload));
  }

  /** keyctl_revoke(3). */
  revoke(process: Process, id: number): Answer {
    return this.#runner.run(process, () => attributes.revoke(this.#state, process, id));
  }

  /** keyctl_chown(3): -1 leaves the user or the group as it is. */
  chown(process: Process, id: number, uid: number, gid: number): Answer {
    return this.#runner.run(process, () => attributes.chown(this.#state, process, id, { uid, gid }));
  }

  /** keyctl_setperm(3). */
  setPermissions(process: Process, id: number, mask: number): Answer {
    return this.#runner.run(process, () => attributes.setPermissions(this.#state, process, id, mask));
  }

  /** keyctl_describe(3): the length of "type;uid;gid;permissions;description" with a NUL, copied if there is room. */
  describe(process: Process, id: number, target?: Uint8Array): Answer {
    return this.#runner.run(process, () => attributes.describe(this.#state, process, id, target));
  }

  /** keyctl_clear(3). */
  clear(process: Process, ring: number): Answer {
    return this.#runner.run(process, () => rings.clear(this.#state, process, ring));
  }

  /** keyctl_link(3). */
  link(process: Process, id: number, ring: number): Answer {
    return this.#runner.run(process, () => rings.link(this.#state, process, id, ring));
  }

  /** keyctl_unlink(3). */
  unlink(process: Process, id: number, ring: number): Answer {
    return this.#runner.run(process, () => rings.unlink(this.#state, process, id, ring));
  }

  /** keyctl_move(3). */
  move(process: Process, id: number, from: number, to: number, flags: number): Answer {
    return this.#runner.run(process, () => rings.move(this.#state, process, id, { from, to }, flags));
  }

  /** keyctl_search(3): 0 as destination links the key nowhere. */
  search(process: Process, ring: number, type: KeyText, description: KeyText, destination: number): Answer {
    return this.#runner.run(process, () =>
      rings.search(this.#state, process, { ring, type, description, destination }),
    );
  }

  /** keyctl_read(3): the size of the payload, given to the target if there is room for all of it. */
  read(process: Process, id: number, target?: PayloadTarget): Answer {
    return this.#runner.run(process, () => attributes.read(this.#state, process, id, target));
  }

  /** keyctl_instantiate(3). */
  instantiate(process: Process, id: number, payload: Uint8Array | null, ring: number): Answer {
    return this.#runner.run(process, () => instantiate(this.#state, process, id, { payload, ring }));
  }

  /** keyctl_negate(3). */
  negate(process: Process, id: number, seconds: number, ring: number): Answer {
    return this.reject(process, id, { seconds, error: ENOKEY, ring });
  }

  /** keyctl_reject(3). */
  reject(process: Process, id: number, refusal: Refusal): Answer {
    return this.#runner.run(process, () => reject(this.#state, process, id, refusal));
  }

  /** keyctl_set_reqkey_keyring(3): one of DEFAULT_RING, or -1 to ask; the result is what was set before. */
  setDefaultRing(process: Process, ring: number): Answer {
    return this.#runner.run(process, () => own.setDefaultRing(this.#state, process, ring));
  }

  /** keyctl_set_timeout(3): 0 for no end. */
  setTimeout(process: Process, id: number, seconds: number): Answer {
    return this.#runner.run(process, () => attributes.setTimeout(this.#state, process, id, seconds));
  }

  /** keyctl_assume_authority(3): 0 gives it up. */
  assumeAuthority(process: Process, id: number): Answer {
    return this.#runner.run(process, () => own.assumeAuthority(this.#state, process, id));
  }

  /** keyctl_get_security(3). */
  getSecurity(process: Process, id: number, target?: Uint8Array): Answer {
    return this.#runner.run(process, () => attributes.getSecurity(this.#state, process, id, target));
  }

  /** keyctl_session_to_parent(3): undefined for a parent that can be given no keyring. */
  sessionToParent(process: Process, parent: own.Parent | undefined): Answer {
    return this.#runner.run(process, () => own.sessionToParent(this.#state, process, parent));
  }

  /** keyctl_invalidate(3). */
  invalidate(process: Process, id: number): Answer {
    return this.#runner.run(process, () => attributes.invalidate(this.#state, process, id));
  }

  /** keyctl_get_persistent(3): -1 for the caller's own. */
  getPersistent(process: Process, uid: number, ring: number): Answer {
    return this.#runner.run(process, () => own.getPersistent(this.#state, process, uid, ring));
  }

  /** keyctl_restrict_keyring(3): null twice refuses every link. */
  restrict(process: Process, ring: number, type: KeyText | null, restriction: KeyText | null): Answer {
    return this.#runner.run(process, () => rings.restrict(this.#state, process, { ring, type, restriction }));
  }

  /** keyctl_capabilities(3): how many bytes there are; as many as fit are copied, and the rest of the target is zeroed. */
  capabilities(target?: Uint8Array): number {
    target?.fill(0);
    target?.set(CAPABILITIES.subarray(0, target.length));
    return CAPABILITIES.length;
  }

  /** What an operation answers that is not offered: Diffie-Hellman, operations on public keys, watches. */
  notSupported(): number {
    return -EOPNOTSUPP;
  }

  // The service itself.

  /** Makes a type of keys known: 0, -EINVAL for its name, or -EEXIST. */
  registerType(type: KeyType): number {
    return registerType(this.#state, type);
  }

  /** Forgets a type: 0 or -ENOENT. Its keys are dead from now on, and keyrings restricted to it take nothing more. */
  unregisterType(name: string): number {
    const result = unregisterType(this.#state, name);
    this.#runner.tidy();
    return result;
  }

  /** The limits as they are. */
  get limits(): KeyLimits {
    return this.#state.limits;
  }

  /** Changes a limit: 0, or -EINVAL for a value out of range. Who is over it already only gets nothing more. */
  setLimit(name: keyof KeyLimits, value: number): number {
    const changed = changeLimit(this.#state.limits, name, value);
    if (typeof changed === "number") return changed;
    this.#state.limits = changed;
    this.#collector.schedule();
    return 0;
  }

  /** The keys that a process may view, in the format of /proc/keys: one character for each byte. */
  procKeys(process: Process): string {
    this.#runner.check(process);
    return procKeys(this.#state, process);
  }

  /** What every user has, in the format of /proc/key-users. */
  procKeyUsers(): string {
    return procKeyUsers(this.#state);
  }

  /** Numbers for a monitor. */
  statistics(): KeyStatistics {
    const { keys, users, processes: attached, payloads } = this.#state;
    const waits = this.#runner.waitCount;
    return { keys: keys.size, users: users.size, processes: attached.size, payloads: payloads.count, waits };
  }

  /** Counts everything anew and compares: a sentence for each thing that is wrong. For tests and for doubts; it looks at every key. */
  audit(): string[] {
    return audit(this.#state);
  }

  /** Ends all requests and waits with -EINTR, and wipes all payloads. Helpers that run are told to end, not waited for. */
  close(): void {
    this.#collector.close();
    processes.closeState(this.#state);
    this.#runner.tidy();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }
}
