import type { KeyService } from "../service.ts";
import type { Process, ProcessIds } from "../process.ts";
import type { Parent } from "../process-operations.ts";
import type { Caller, PeerIdentity } from "./caller.ts";
import type { ProcessFacts, ProcessRights, ProcessTable } from "./proc-files.ts";

/** One process that the daemon knows. */
interface Known {
  readonly pid: number;
  readonly start: string;
  image: string;
  readonly process: Process;
  connections: number;
}

/** Rights of a process, as they are given to the service. */
interface Rights extends ProcessIds {
  readonly sysAdmin: boolean;
  readonly setUid: boolean;
}

/** Ancestors that are looked at: deeper trees are no trees of real programs. */
const ANCESTORS_MAX = 1024;
const SWEEP_MS = 1000;
/** A process that only asked one thing is usually gone this long after it hung up. */
const GONE_AFTER_MS = 30;
/** Looking for processes that have ended takes no more than this part of the time, however many there are. */
const SWEEP_SHARE = 1 / 20;
/** So few are looked at whenever somebody connects. */
const SWEPT_ALWAYS = 32;
const CAP_SETUID = 7n;
const CAP_SYS_ADMIN = 21n;

/**
 * Which credential record belongs to which process. A process is its pid and its start time; the pid comes from the
 * kernel, never from the client. One that is not known yet inherits from its nearest known ancestor, once.
 */
export class ProcessRegistry {
  readonly #service: KeyService;
  readonly #table: ProcessTable;
  readonly #known = new Map<number, Known>();
  /** Whom each connection speaks for. */
  readonly #callers = new Map<Caller, Known>();
  readonly #sweeper: NodeJS.Timeout;
  readonly #soon = new Set<NodeJS.Timeout>();
  /** Milliseconds: when the next sweep may be without taking more than its share. */
  #sweepFrom = 0;

  constructor(service: KeyService, table: ProcessTable) {
    this.#service = service;
    this.#table = table;
    this.#sweeper = setInterval(() => this.sweep(), SWEEP_MS);
    this.#sweeper.unref();
  }

  /** Processes that are known. */
  get size(): number {
    return this.#known.size;
  }

  /** The caller at the other end of a new connection; undefined when the kernel does not say who that is. */
  identify(peer: PeerIdentity): Caller | undefined {
    // Keys of a process that has ended are gone for whoever connects after that.
    if (this.#known.size <= SWEPT_ALWAYS || performance.now() >= this.#sweepFrom) this.sweep();
    const facts = peer.pid > 0 ? this.#table.facts(peer.pid) : undefined;
    if (facts === undefined || !facts.isAlive) return undefined;
    const rights = rightsOf(peer, this.#table.rights(peer.pid));
    const known = this.#withRights(this.#knownOf(facts) ?? this.#admit(facts, rights), rights);
    this.#noticeExec(known, facts);
    known.connections += 1;
    const caller = { pid: peer.pid, uid: peer.uid, process: known.process, parent: () => this.#parentOf(known) };
    this.#callers.set(caller, known);
    return caller;
  }

  /** A connection of the caller has ended; the caller itself ends with its process. */
  disconnected(caller: Caller): void {
    const known = this.#callers.get(caller);
    if (known === undefined) return;
    this.#callers.delete(caller);
    known.connections -= 1;
    if (known.connections > 0) return;
    if (this.#known.get(known.pid) !== known) {
      this.#end(known);
      return;
    }
    const timer = setTimeout(() => {
      this.#soon.delete(timer);
      this.#endIfGone(known);
    }, GONE_AFTER_MS);
    timer.unref();
    this.#soon.add(timer);
  }

  /**
   * A program that the daemon starts itself: it and its children get a copy of this record, from before it can connect.
   */
  adopt(pid: number, process: Process): void {
    const facts = this.#table.facts(pid);
    if (facts === undefined) return;
    this.#endIfStale(pid, facts.start);
    this.#record(facts, this.#service.fork(process, { pid }));
  }

  /** A program that was adopted has ended: its session keyring must not wait for the next sweep. */
  release(pid: number): void {
    const session = this.#known.get(pid)?.process.session;
    if (session === undefined) return;
    for (const known of [...this.#known.values()]) if (known.process.session === session) this.#endIfGone(known);
  }

  /** Lets go of processes that have ended. */
  sweep(): void {
    const before = process.cpuUsage();
    for (const known of [...this.#known.values()]) this.#endIfGone(known);
    const { user, system } = process.cpuUsage(before);
    this.#sweepFrom = performance.now() + (user + system) / 1000 / SWEEP_SHARE;
  }

  /** Lets go of all of them. */
  close(): void {
    clearInterval(this.#sweeper);
    for (const timer of this.#soon) clearTimeout(timer);
    this.#soon.clear();
    for (const known of new Set([...this.#known.values(), ...this.#callers.values()])) this.#end(known);
    this.#callers.clear();
  }

  #knownOf(facts: ProcessFacts): Known | undefined {
    this.#endIfStale(facts.pid, facts.start);
    return this.#known.get(facts.pid);
  }

  /** First contact. */
  #admit(facts: ProcessFacts, rights: Rights): Known {
    const ancestor = this.#ancestorOf(facts);
    const identity = { pid: facts.pid, ...rights };
    if (ancestor === undefined) return this.#record(facts, this.#service.attach(identity));
    const process = this.#service.fork(ancestor.process, { pid: facts.pid });
    this.#service.setIds(process, rights);
    return this.#record(facts, process);
  }

  /** The nearest ancestor that is known, or the known leader of its session, which is one even when those between are gone. */
  #ancestorOf(facts: ProcessFacts): Known | undefined {
    let { parent } = facts;
    for (let steps = 0; parent > 1 && parent !== process.pid && steps < ANCESTORS_MAX; steps += 1) {
      const above = this.#table.facts(parent);
      if (above === undefined) break;
      const known = this.#knownOf(above);
      if (known !== undefined) return known;
      ({ parent } = above);
    }
    const leader = facts.leader > 1 ? this.#table.facts(facts.leader) : undefined;
    return leader === undefined ? undefined : this.#knownOf(leader);
  }

  #record(facts: ProcessFacts, process: Process): Known {
    const known: Known = { pid: facts.pid, start: facts.start, image: facts.image, process, connections: 0 };
    this.#known.set(facts.pid, known);
    return known;
  }

  /** It may have executed another program since its last connection. */
  #noticeExec(known: Known, { image }: ProcessFacts): void {
    if (known.image !== image) this.#service.exec(known.process);
    known.image = image;
  }

  /**
   * The record of a process with the rights that it has now. A connection that is open has those of when it was made,
   * whoever holds it by now: it keeps the old record, and the process gets another.
   */
  #withRights(known: Known, rights: Rights): Known {
    if (sameRights(known.process, rights)) return known;
    if (known.connections === 0) {
      this.#service.setIds(known.process, rights);
      return known;
    }
    const process = this.#service.fork(known.process, { pid: known.pid });
    this.#service.setIds(process, rights);
    const next = { ...known, process, connections: 0 };
    this.#known.set(known.pid, next);
    return next;
  }

  #parentOf(known: Known): Parent | undefined {
    const facts = this.#table.facts(known.pid);
    if (facts?.start !== known.start || facts.parent <= 1 || facts.parent === process.pid) return undefined;
    const above = this.#table.facts(facts.parent);
    const rights = above === undefined ? undefined : this.#table.rights(above.pid);
    if (above === undefined || rights === undefined || above.isKernelThread) return undefined;
    const given = rightsFrom(rights);
    const parent = this.#withRights(this.#knownOf(above) ?? this.#admit(above, given), given);
    return { process: parent.process, threads: above.threads };
  }

  #endIfStale(pid: number, start: string): void {
    const known = this.#known.get(pid);
    if (known === undefined || known.start === start) return;
    // Somebody else may hold a connection of the process that is gone; the record ends with it.
    if (known.connections > 0) this.#known.delete(pid);
    else this.#end(known);
  }

  #endIfGone(known: Known): void {
    if (this.#known.get(known.pid) !== known || known.connections > 0) return;
    const facts = this.#table.facts(known.pid);
    if (facts === undefined || facts.start !== known.start || !facts.isAlive) this.#end(known);
  }

  #end(known: Known): void {
    if (this.#known.get(known.pid) === known) this.#known.delete(known.pid);
    this.#service.exit(known.process);
  }
}

const sameRights = (process: Process, rights: Rights): boolean =>
  process.uid === rights.uid &&
  process.gid === rights.gid &&
  process.euid === rights.euid &&
  process.egid === rights.egid &&
  process.suid === rights.suid &&
  process.sgid === rights.sgid &&
  process.fsuid === rights.fsuid &&
  process.fsgid === rights.fsgid &&
  process.groups.join() === rights.groups?.join();

const rightsFrom = ({ users, groups, supplementary, capabilities }: ProcessRights): Rights => ({
  uid: users[0],
  euid: users[1],
  suid: users[2],
  fsuid: users[3],
  gid: groups[0],
  egid: groups[1],
  sgid: groups[2],
  fsgid: groups[3],
  groups: supplementary,
  sysAdmin: users[1] === 0 && ((capabilities >> CAP_SYS_ADMIN) & 1n) === 1n,
  setUid: users[1] === 0 && ((capabilities >> CAP_SETUID) & 1n) === 1n,
});

/**
 * The rights of a connected process. What the kernel recorded when it connected decides: between that moment and the
 * reading of /proc the process may have executed a program with more rights, while another still holds the connection.
 */
const rightsOf = (peer: PeerIdentity, rights: ProcessRights | undefined): Rights => {
  if (rights !== undefined && rights.users[1] === peer.uid && rights.groups[1] === peer.gid) return rightsFrom(rights);
  const { uid, gid } = peer;
  const ids = { uid, euid: uid, suid: uid, fsuid: uid, gid, egid: gid, sgid: gid, fsgid: gid };
  return { ...ids, groups: [], sysAdmin: false, setUid: false };
};
