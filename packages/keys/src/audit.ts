import { authorityOf } from "./authority.ts";
import { holdersOf, holds, type Key, KEY_IN_QUOTA, NEVER, UNINSTANTIATED, USAGE_MAX } from "./key.ts";
import { isKeyring, linksOf } from "./link-table.ts";
import { LINK_BYTES } from "./links.ts";
import type { KeyState } from "./state.ts";
import { UserRecord } from "./user-record.ts";

/** Counts references anew, from all places that hold them. */
const countReferences = (state: KeyState): Map<Key, number> => {
  const counts = new Map<Key, number>();
  const count = (key: Key | undefined, times = 1): void => {
    if (key !== undefined) counts.set(key, (counts.get(key) ?? 0) + times);
  };
  for (const key of state.keys.values()) {
    if (isKeyring(key)) {
      for (const linked of linksOf(key).list()) count(linked);
      count(linksOf(key).restriction?.trusted);
    }
    for (const held of authorityOf(key)?.held ?? []) count(held);
  }
  for (const { thread, process, session, authority } of state.processes) {
    for (const key of [thread, process, session, authority]) count(key);
  }
  for (const [key, times] of state.pins) count(key, times);
  count(state.userRegister);
  count(state.persistentRegister);
  return counts;
};

const auditKey = (state: KeyState, key: Key, references: number): string[] => {
  const found: string[] = [];
  const name = `key ${key.serial}`;
  if (key.usage !== references && key.usage < USAGE_MAX) {
    found.push(`${name}: usage ${key.usage}, but ${references} references`);
  }
  for (const ring of holdersOf(key)) {
    if (!isKeyring(ring) || linksOf(ring).find(key) !== key)
      found.push(`${name}: keyring ${ring.serial} does not hold it`);
  }
  const base = key.description.length + 1 + (key.type.baseBytes ?? 0);
  const charged = (key.flags & KEY_IN_QUOTA) === 0 ? 0 : base + key.payloadBytes;
  if (key.quotaBytes !== charged) found.push(`${name}: ${key.quotaBytes} bytes charged instead of ${charged}`);
  if (key.expiry !== NEVER && key.holders !== undefined && !isTimed(state, key)) {
    found.push(`${name}: will not be collected when it expires`);
  }
  if (isKeyring(key)) found.push(...auditKeyring(key));
  return found;
};

/** A key that expires is known to the collector, until that has been past it. */
const isTimed = (state: KeyState, key: Key): boolean => {
  const atOnce = key.type.reapsAtOnce === true;
  const index = atOnce ? state.expiringAtOnce : state.expiring;
  const delay = atOnce ? 0 : state.limits.gcDelaySeconds;
  return index.has(key.expiry, key) || key.expiry + delay <= state.clock.seconds();
};

const auditKeyring = (keyring: Key): string[] => {
  const found: string[] = [];
  const links = linksOf(keyring);
  const linked = links.list();
  const name = `keyring ${keyring.serial}`;
  if (linked.length !== links.size) found.push(`${name}: ${links.size} links, but ${linked.length} are listed`);
  for (const key of linked) {
    if (!holds(keyring, key)) found.push(`${name}: key ${key.serial} does not know that it is linked`);
    if (links.find(key) !== key) found.push(`${name}: key ${key.serial} is not found by its own description`);
    if (key.usage <= 0) found.push(`${name}: key ${key.serial} has no references left`);
  }
  const charged = links.size * LINK_BYTES + links.leakedBytes;
  if (keyring.payloadBytes !== charged)
    found.push(`${name}: ${keyring.payloadBytes} bytes for links instead of ${charged}`);
  const keyrings = linked.filter(isKeyring);
  if (keyrings.length !== links.keyrings().length) found.push(`${name}: its list of keyrings is wrong`);
  return found;
};

const auditUsers = (state: KeyState): string[] => {
  const recounted = new Map<number, UserRecord>();
  const of = (uid: number): UserRecord => {
    let user = recounted.get(uid);
    if (user === undefined) recounted.set(uid, (user = new UserRecord(uid)));
    return user;
  };
  of(0);
  for (const key of [...state.keys.values(), ...state.dead]) {
    const user = of(key.user.uid);
    user.keyCount += 1;
    if (key.state !== UNINSTANTIATED) user.instantiatedCount += 1;
    if ((key.flags & KEY_IN_QUOTA) === 0 || key.usage === 0) continue;
    user.quotaKeys += 1;
    user.quotaBytes += key.quotaBytes;
  }
  const found: string[] = [];
  for (const uid of new Set([...recounted.keys(), ...state.users.keys()])) {
    const [is, should] = [state.users.get(uid), recounted.get(uid)].map((user) =>
      user === undefined
        ? "no record"
        : `${user.keyCount}/${user.instantiatedCount} keys, quota ${user.quotaKeys}/${user.quotaBytes}`,
    );
    if (is !== should) found.push(`user ${uid}: ${is} instead of ${should}`);
  }
  return found;
};

const auditNames = (state: KeyState): string[] => {
  const found: string[] = [];
  const named = new Set([...state.named.values()].flatMap((same) => [...same]));
  for (const key of state.keys.values()) {
    const joinable = isKeyring(key) && !key.description.startsWith(".");
    if (joinable !== named.has(key)) found.push(`key ${key.serial}: ${joinable ? "missing" : "present"} among names`);
  }
  return found;
};

/**
 * Counts everything anew from what there is, and compares: references, links, charges, users, names. One sentence for each
 * thing that is wrong; none if all is sound. Descriptions do not appear.
 */
export const audit = (state: KeyState): string[] => {
  const references = countReferences(state);
  const found = [...state.keys.values()].flatMap((key) => auditKey(state, key, references.get(key) ?? 0));
  for (const key of references.keys()) {
    if (state.keys.get(key.serial) !== key) found.push(`key ${key.serial}: referred to, but not listed`);
  }
  for (const [serial, key] of state.keys)
    if (key.serial !== serial) found.push(`key ${key.serial}: listed as ${serial}`);
  return [...found, ...auditUsers(state), ...auditNames(state)];
};
