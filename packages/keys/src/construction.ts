import { Authority, authorityOf, authorityType } from "./authority.ts";
import { EACCES, EINVAL, EIO, EKEYREVOKED, ENOENT, ENOKEY, ENOTDIR, EPERM } from "./errno.ts";
import { defaultPermissions } from "./add-operations.ts";
import { instantiateAndLink, rejectAndLink, revoke, unparsed } from "./instantiation.ts";
import { type Key, KEY_REVOKED, KEY_UNDER_CONSTRUCTION } from "./key.ts";
import { isKeyring } from "./link-table.ts";
import { beginLink, commitLink, link } from "./links.ts";
import { searchProcess, validate } from "./lookup.ts";
import { KEY_LINK, KEY_READ, KEY_SEARCH, KEY_VIEW, KEY_WRITE, permissionMask, permits } from "./permission.ts";
import { type Credentials, DEFAULT_RING, Process } from "./process.ts";
import { createRing, SESSION_RING, setSession, userRings } from "./rings.ts";
import type { Wanted } from "./search.ts";
import type { KeyState } from "./state.ts";
import { ownText } from "./text.ts";
import { keyringType } from "./type-keyring.ts";
import { type Upcall, type UpcallActor, UPCALL_ENVIRONMENT } from "./upcall.ts";

/** How long a key stays negative that nobody instantiated. */
const NEGATIVE_SECONDS = 60;

const AUTHORITY_PERMISSIONS = permissionMask({
  possessor: KEY_VIEW | KEY_READ | KEY_SEARCH | KEY_LINK,
  user: KEY_VIEW,
});

/** What a service does about upcalls. */
export interface UpcallOptions {
  readonly actor: UpcallActor | undefined;
  /** Milliseconds after which a helper is given up; 0 for never. */
  readonly timeoutMs: number;
}

/** A key that is being asked for. */
export interface Construction {
  readonly wanted: Wanted;
  readonly callout: Uint8Array;
  /** Where the caller wants it linked; undefined: as its settings say; null: nowhere. */
  readonly destination: Key | undefined | null;
  /** Told the key as soon as it is there, before it is built. */
  readonly onKey?: (key: Key) => void;
}

/** Where a requested key is linked if the caller said nothing: by its setting, then what it has. Source: request-key(7). */
export const destinationFor = (state: KeyState, process: Process): Key | number => {
  const { authority, defaultRing: setting } = process;
  if (setting === DEFAULT_RING.default || setting === DEFAULT_RING.requestor) {
    const lent = authority === undefined || (authority.flags & KEY_REVOKED) !== 0 ? undefined : authorityOf(authority);
    if (lent?.destination !== undefined) return lent.destination;
  }
  const ring = ownDestination(state, process, setting);
  if (typeof ring === "number") return ring;
  return permits(ring, KEY_WRITE, process, true) ? ring : -EACCES;
};

const ownDestination = (state: KeyState, process: Process, setting: number): Key | number => {
  const from = setting === DEFAULT_RING.requestor ? DEFAULT_RING.default : setting;
  if (from <= DEFAULT_RING.thread && process.thread !== undefined) return process.thread;
  if (from <= DEFAULT_RING.process && process.process !== undefined) return process.process;
  if (from <= DEFAULT_RING.session && process.session !== undefined) return process.session;
  const rings = userRings(state, process);
  if (typeof rings === "number") return rings;
  return setting === DEFAULT_RING.user ? rings.user : rings.session;
};

/** What `beginConstruction` came to: a key that is there after all, or one that must be built. The key is pinned. */
export interface Begun {
  readonly key: Key;
  readonly destination: Key | undefined;
  readonly isPresent: boolean;
}

/** Makes a key to be built and links it: or -EPERM, -EACCES, -EDQUOT, -EINVAL, -ENOTDIR, -EKEYREVOKED. Restrictions are not asked. */
export const beginConstruction = (state: KeyState, process: Process, construction: Construction): Begun | number => {
  const { wanted } = construction;
  if (wanted.type === keyringType) return -EPERM;
  const chosen = construction.destination === undefined ? destinationFor(state, process) : construction.destination;
  if (typeof chosen === "number") return chosen;
  const destination = chosen ?? undefined;
  const key = allocateTarget(state, process, wanted);
  if (typeof key === "number") return key;
  if (destination !== undefined && !isKeyring(destination)) {
    state.put(key);
    return -ENOTDIR;
  }
  // Functions of types may have added it meanwhile.
  const present = searchProcess(state, process, wanted);
  if (typeof present !== "number") {
    state.put(key);
    const refusal = destination === undefined ? 0 : link(state, destination, present, { restricted: false });
    return refusal < 0 ? refusal : { key: state.pin(present), destination, isPresent: true };
  }
  const refusal = linkTarget(state, destination, key);
  if (refusal === 0) state.pin(key);
  state.put(key);
  return refusal < 0 ? refusal : { key, destination, isPresent: false };
};

const linkTarget = (state: KeyState, destination: Key | undefined, key: Key): number => {
  if (destination === undefined) return 0;
  const begun = beginLink(state, destination, key);
  if (begun < 0) return begun;
  commitLink(state, destination, key);
  return 0;
};

const allocateTarget = (state: KeyState, process: Process, wanted: Wanted): Key | number => {
  const { type, domain } = wanted;
  const description = ownText(wanted.description);
  if (description === "") return -EINVAL;
  const vetted = type.vetDescription?.(description) ?? 0;
  if (vetted < 0) return vetted;
  const { fsuid: uid, fsgid: gid } = process;
  const permissions = defaultPermissions(type);
  const key = state.allocate({ type, description, domain, uid, gid, permissions, quota: "checked" });
  if (typeof key !== "number") key.flags |= KEY_UNDER_CONSTRUCTION;
  return key;
};

/** Rights and keyrings of a requester, held as they are. */
const snapshot = (who: Credentials): Credentials => {
  const { uid, gid, fsuid, fsgid, groups, thread, process, session } = who;
  return { uid, gid, fsuid, fsgid, groups, thread, process, session };
};

/** The key that carries the authority to build another; -EKEYREVOKED if the caller's own authority has ended. */
export const createAuthority = (
  state: KeyState,
  process: Process,
  facts: Pick<Authority, "target" | "destination" | "callout">,
): Key | number => {
  const assumed = process.authority;
  const first = assumed === undefined ? undefined : authorityOf(assumed);
  if (assumed !== undefined && (first === undefined || (assumed.flags & KEY_REVOKED) !== 0)) return -EKEYREVOKED;
  const requester = first?.requester ?? snapshot(process);
  const authority = new Authority({ ...facts, requester, pid: first?.pid ?? process.pid });
  const key = state.allocate({
    type: authorityType,
    description: facts.target.serial.toString(16),
    domain: "",
    uid: process.fsuid,
    gid: process.fsgid,
    permissions: AUTHORITY_PERMISSIONS,
    quota: "none",
  });
  if (typeof key === "number") return key;
  for (const each of authority.held) state.get(each);
  key.payload = authority;
  authority.key = key;
  instantiateAndLink(state, key, unparsed(null, key.uid), {});
  return key;
};

/** Ends a construction: with an error the key becomes negative, unless it is built; otherwise the authority is revoked. */
export const completeRequest = (state: KeyState, authority: Key, error: number): void => {
  const target = authorityOf(authority)?.target;
  if (error >= 0 || target === undefined) revoke(state, authority);
  else rejectAndLink(state, target, { seconds: NEGATIVE_SECONDS, error: ENOKEY, authority });
};

/** Makes a key negative whose construction failed before anybody else could. */
export const negateFailed = (state: KeyState, key: Key): void => {
  rejectAndLink(state, key, { seconds: NEGATIVE_SECONDS, error: ENOKEY });
};

/** Has a key built: by its type, or by a helper. The result is 0 or why not; it is settled either way. */
export const build = async (
  state: KeyState,
  process: Process,
  authority: Key,
  options: UpcallOptions & { readonly aux?: unknown },
): Promise<number> => {
  const carried = authorityOf(authority)!;
  const { target } = carried;
  const { type } = target;
  if (type.requestKey === undefined) return await buildWithHelper(state, process, authority, options);
  const run = async (): Promise<number> => {
    await type.requestKey?.(carried, options.aux);
    return 0;
  };
  await within(state, run, options);
  const failed = (target.flags & KEY_UNDER_CONSTRUCTION) !== 0;
  completeRequest(state, authority, failed ? -ENOKEY : 0);
  return failed ? -ENOKEY : 0;
};

const buildWithHelper = async (
  state: KeyState,
  process: Process,
  authority: Key,
  options: UpcallOptions,
): Promise<number> => {
  const { target } = authorityOf(authority)!;
  const helper = createHelper(state, process, authority);
  if (typeof helper === "number") {
    completeRequest(state, authority, helper);
    return helper;
  }
  const started = await runHelper(state, upcallFor(process, target, helper), options);
  releaseProcess(state, helper.process);
  const unsettled = (target.flags & KEY_UNDER_CONSTRUCTION) !== 0 || validate(state, target) < 0;
  const result = started >= 0 && unsettled ? -ENOKEY : Math.min(started, 0);
  completeRequest(state, authority, result);
  return result;
};

interface Helper {
  readonly process: Process;
  /** Session keyring that the helper is told of. */
  readonly session: Key;
}

/** A process for a helper: user 0, with a session keyring of its own that holds the authority. */
const createHelper = (state: KeyState, process: Process, authority: Key): Helper | number => {
  const rings = userRings(state, process);
  if (typeof rings === "number") return rings;
  const { target } = authorityOf(authority)!;
  const session = createRing(state, {
    description: `_req.${target.serial}`,
    uid: process.fsuid,
    gid: process.fsgid,
    permissions: SESSION_RING,
    quota: "counted",
  });
  if (typeof session === "number") return session;
  const refusal = link(state, session, authority);
  if (refusal < 0) {
    state.put(session);
    return refusal;
  }
  const helper = new Process({ pid: 0, uid: 0, gid: 0 });
  helper.defaultRing = DEFAULT_RING.thread;
  helper.helps = target;
  setSession(state, helper, session);
  state.put(session);
  state.processes.add(helper);
  return { process: helper, session: process.session ?? rings.session };
};

const upcallFor = (process: Process, target: Key, helper: Helper): Omit<Upcall, "signal"> => ({
  operation: "create",
  target: target.serial,
  argv: [
    "create",
    ...[
      target.serial,
      process.fsuid,
      process.fsgid,
      process.thread?.serial ?? 0,
      process.process?.serial ?? 0,
      helper.session.serial,
    ].map(String),
  ],
  env: UPCALL_ENVIRONMENT,
  helper: helper.process,
});

/** Runs a helper, and no longer than allowed: 0 or more when it ran, or a negated error number. */
const runHelper = async (
  state: KeyState,
  upcall: Omit<Upcall, "signal">,
  { actor, timeoutMs }: UpcallOptions,
): Promise<number> => {
  if (actor === undefined) return -ENOENT;
  const abort = new AbortController();
  const run = async (): Promise<number> => await actor.run({ ...upcall, signal: abort.signal });
  return await within(state, run, { timeoutMs, onGivenUp: () => abort.abort() });
};

/** How long something may take, and who hears of it if it takes longer. */
interface Patience {
  readonly timeoutMs: number;
  readonly onGivenUp?: () => void;
}

/** What `run` comes to; -EIO if it fails, 0 if it takes too long or the service is closed before. */
const within = async (
  state: KeyState,
  run: () => Promise<number>,
  { timeoutMs, onGivenUp }: Patience,
): Promise<number> =>
  await new Promise((resolve) => {
    let cancel = (): void => undefined;
    const end = (result: number): void => {
      cancel();
      state.openEnds.delete(giveUp);
      resolve(result);
    };
    const giveUp = (): void => {
      onGivenUp?.();
      end(0);
    };
    state.openEnds.add(giveUp);
    if (timeoutMs > 0) cancel = state.clock.after(timeoutMs, giveUp);
    // What was thrown could hold anything, a secret too; that it failed is all that is passed on.
    void run().then(end, () => end(-EIO));
  });

/** Lets go of all that a process has. */
export const releaseProcess = (state: KeyState, process: Process): void => {
  if (!state.processes.delete(process)) return;
  const { thread, process: own, session, authority } = process;
  process.thread = undefined;
  process.process = undefined;
  process.session = undefined;
  process.authority = undefined;
  process.helps = undefined;
  for (const key of [thread, own, session, authority]) if (key !== undefined) state.put(key);
};
