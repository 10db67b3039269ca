/**
 * A vCPU thread as it sees itself: its view of the hypervisor, and its line to the control domain.
 */
import { receiveMessageOnPort } from "node:worker_threads";
import { Hypervisor } from "@xenolith/core";
import { setThreadNice } from "@xenolith/sys";
import { HostTable } from "./host-table.ts";
import { fastBank } from "./machine.ts";
import { LinuxMmu } from "./mmu.ts";
import { ThreadPlatform } from "./platform.ts";
import type { AnswerCommand, Command, Report, ThreadBoot } from "./protocol.ts";

/** The calling thread, attached to a hypervisor. */
export class GuestThread {
  readonly tag: number;
  /** Whether no thread of this process has been found to be as expected yet. */
  readonly isFirst: boolean;
  readonly platform: ThreadPlatform;
  readonly hypervisor: Hypervisor;
  readonly hostTable: HostTable;
  readonly #boot: ThreadBoot;
  readonly #mailbox: Int32Array;
  /** Commands that came while the guest waited for an answer. */
  readonly #early: Command[] = [];

  constructor(boot: ThreadBoot) {
    this.#boot = boot;
    this.tag = boot.tag;
    this.isFirst = boot.isFirst;
    this.#mailbox = new Int32Array(boot.mailbox);
    this.platform = new ThreadPlatform({
      mmu: new LinuxMmu(boot.bankFds, boot.softBases),
      epochNs: boot.epochNs,
      isHurried: boot.isUrgent,
      ringDoorbell: () => this.report({ type: "doorbell" }),
      canPark: true,
    });
    this.hypervisor = new Hypervisor(boot.storage, {
      platform: this.platform,
      tag: boot.tag,
      fastBank: fastBank(boot.bankBases),
    });
    this.hostTable = new HostTable(boot.hostTable, boot.storage.geometry);
  }

  /** Tells the control domain's thread something. It arrives although this thread never returns to its event loop. */
  report(report: Report): void {
    this.#boot.port.postMessage(report);
  }

  /** From now on the thread runs a guest, and lets others of the process go first. */
  giveWay(): void {
    if (this.#boot.guestNice > 0) setThreadNice(this.#boot.guestNice);
  }

  /** The next command if one has arrived. */
  takeCommand(): Command | undefined {
    return this.#early.shift() ?? this.#receive();
  }

  /** The answer of an offered function if it has arrived. Commands that come before it are kept for later. */
  takeAnswer(): AnswerCommand | undefined {
    for (let command = this.#receive(); command !== undefined; command = this.#receive()) {
      if (command.type === "answer") return command;
      this.#early.push(command);
    }
    return undefined;
  }

  /** Sleeps until the first command comes. */
  awaitCommand(): Command {
    for (;;) {
      const seen = Atomics.load(this.#mailbox, 0);
      const command = this.takeCommand();
      if (command !== undefined) return command;
      Atomics.wait(this.#mailbox, 0, seen);
    }
  }

  #receive(): Command | undefined {
    const message: Command | undefined = receiveMessageOnPort(this.#boot.port)?.message;
    return message;
  }
}
