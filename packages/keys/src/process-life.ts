import { releaseProcess } from "./construction.ts";
import type { Key } from "./key.ts";
import { Process, type ProcessIdentity, type ProcessIds } from "./process.ts";
import { threadRing } from "./rings.ts";
import type { KeyState } from "./state.ts";

const copyOf = (process: Process, pid: number): Process => {
  const { uid, gid, euid, egid, suid, sgid, fsuid, fsgid, groups, sysAdmin, setUid } = process;
  return new Process({ pid, uid, gid, euid, egid, suid, sgid, fsuid, fsgid, groups, sysAdmin, setUid });
};

/** A record for a process that nobody told of before. */
export const attach = (state: KeyState, identity: ProcessIdentity): Process => {
  const process = new Process(identity);
  state.processes.add(process);
  return process;
};

/** A child: the same session and authority, no thread or process keyring. */
export const fork = (state: KeyState, parent: Process, pid: number): Process => {
  const child = copyOf(parent, pid);
  const held = (key: Key | undefined): Key | undefined => (key === undefined ? undefined : state.get(key));
  child.session = held(parent.session);
  child.authority = held(parent.authority);
  child.helps = parent.helps;
  child.defaultRing = parent.defaultRing;
  state.processes.add(child);
  return child;
};

/** Another thread: it shares the process keyring, and has a new thread keyring if this thread has one. */
export const newThread = (state: KeyState, process: Process, pid: number): Process => {
  const thread = fork(state, process, pid);
  thread.process = process.process === undefined ? undefined : state.get(process.process);
  if (process.thread !== undefined) threadRing(state, thread);
  return thread;
};

/** Another program in the same process: its thread and process keyrings go. */
export const exec = (state: KeyState, process: Process): void => {
  const { thread, process: own } = process;
  process.thread = undefined;
  process.process = undefined;
  for (const key of [thread, own]) if (key !== undefined) state.put(key);
};

/** The process is gone, and so is all that it had. */
export const exit = (state: KeyState, process: Process): void => releaseProcess(state, process);

/** The process has other users and groups now. Its thread keyring goes with them; what it has charged does not. */
export const setIds = (
  process: Process,
  ids: ProcessIds & { readonly sysAdmin?: boolean; readonly setUid?: boolean },
): void => {
  const next = new Process({ ...ids, pid: process.pid });
  const changesUser = next.fsuid !== process.fsuid;
  const changesGroup = next.fsgid !== process.fsgid;
  process.uid = next.uid;
  process.euid = next.euid;
  process.suid = next.suid;
  process.fsuid = next.fsuid;
  process.gid = next.gid;
  process.egid = next.egid;
  process.sgid = next.sgid;
  process.fsgid = next.fsgid;
  process.groups = next.groups;
  process.sysAdmin = next.sysAdmin;
  process.setUid = next.setUid;
  if (process.thread === undefined) return;
  if (changesUser) process.thread.uid = next.fsuid;
  if (changesGroup) process.thread.gid = next.fsgid;
};

/** All processes are gone, and so are the keyrings that the service keeps. Waits end. */
export const closeState = (state: KeyState): void => {
  state.waits.interruptAll();
  for (const giveUp of [...state.openEnds]) giveUp();
  for (const process of [...state.processes]) exit(state, process);
  for (const register of [state.userRegister, state.persistentRegister])
    if (register !== undefined) state.put(register);
  state.userRegister = undefined;
  state.persistentRegister = undefined;
};
