/**
 * The kernel's own upcall, as the floor of ours: request_key(2) starts /sbin/request-key of keyutils, which starts the program of
 * the rule. A machine that has keyutils has such a rule among its first ones. To one that has not, REQUEST_KEY=/path/of/request-key
 * lends the program and the rule while the bench runs; only user 0 can.
 */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, rmdirSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { BareKeys } from "./bare-keys.ts";
import { Undo } from "./undo.ts";

/** Where the kernel looks; nothing can be set about it. */
const PROGRAM = "/sbin/request-key";
const RULES = "/etc/request-key.d";
const RULE = `${RULES}/xenolith-bench.conf`;

/** Descriptions that begin so are built by `/bin/cat`: a rule of keyutils' own configuration. */
export const LOOPED = "debug:loop:";
/** The rule, in the form of request-key.conf(5). */
export const LOOP_RULE = `create user ${LOOPED}* * |/bin/cat\n`;

const complain = (reason: string): undefined =>
  void process.stderr.write(`NOT COMPARED WITH THE KERNEL'S UPCALL: ${reason}\n`);

/** Puts the program and the rule where the kernel and the program look. */
const lend = (program: string): Undo => {
  const loan = new Undo();
  if (!existsSync(RULES)) {
    loan.put(
      () => mkdirSync(RULES),
      () => rmdirSync(RULES),
    );
  }
  loan.put(
    () => writeFileSync(RULE, LOOP_RULE, { flag: "wx" }),
    () => unlinkSync(RULE),
  );
  loan.put(
    () => symlinkSync(program, PROGRAM),
    () => unlinkSync(PROGRAM),
  );
  return loan;
};

/** A kernel that builds keys. */
export class KernelUpcall implements Disposable {
  readonly #keys = new BareKeys();
  readonly #loan: Undo | undefined;
  #number = 0;

  private constructor(loan: Undo | undefined) {
    this.#loan = loan;
  }

  /** The kernel's upcall, if it works on this machine; otherwise says why it does not. */
  static open(): KernelUpcall | undefined {
    const { REQUEST_KEY: lent } = process.env;
    if (!existsSync(PROGRAM) && (lent === undefined || process.getuid!() !== 0)) {
      return complain(`there is no ${PROGRAM}; as user 0, REQUEST_KEY=/path/of/request-key lends one meanwhile`);
    }
    const upcall = new KernelUpcall(existsSync(PROGRAM) ? undefined : lend(lent!));
    const result = upcall.#request();
    if (result > 0) return upcall;
    upcall[Symbol.dispose]();
    return complain(`it does not build ${LOOPED}*: ${result}`);
  }

  /** Has another key built: the nanoseconds that it took. */
  timed(): number {
    const start = process.hrtime.bigint();
    assert(this.#request() > 0);
    return Number(process.hrtime.bigint() - start);
  }

  #request(): number {
    return this.#keys.request(Buffer.from(`${LOOPED}${process.pid}:${(this.#number += 1)}\0`), Buffer.from("told\0"));
  }

  [Symbol.dispose](): void {
    this.#loan?.[Symbol.dispose]();
  }
}
