/**
 * Serves one key_op: reads what its row says, checks it, carries it out as the calling vCPU, and hands the answer over.
 * Nothing is changed before everything is read and checked, and nothing can fail afterwards but the handing over of bytes
 * that were asked for.
 */
import { EFAULT, EINTR, EINVAL, ENOKEY, ENOSYS, XENKEYF_secret_payload } from "@xenolith/abi";
import type { Answer, KeyService, Process } from "@xenolith/keys";
import type { Secret, SecretOwner } from "@xenolith/secrets";
import { type KeyCommand, keyCommands, type ReadCall } from "./commands.ts";
import { KeyArguments, type KeyCall } from "./key-call.ts";
import { GuestTarget, takePayload } from "./transfer.ts";

/** As whom a call is made. */
export interface KeyCaller {
  readonly service: KeyService;
  readonly process: Process;
  /** Who bears a payload while it is on its way into a key. */
  readonly owner: SecretOwner;
}

/** Serves a call: its result, or the promise of one that waits for a key under construction. */
export const serveCall = (call: KeyCall, caller: KeyCaller): number | Promise<number> => {
  const row = keyCommands[call.command];
  if (row === undefined) return -ENOSYS;
  const input = new KeyArguments(call.memory);
  if (input.fetch(call.argument, row.struct.sizeBytes) !== 0) return -EFAULT;
  const flags = row.flags === undefined ? 0 : input.get(row.flags);
  if ((flags & ~(row.knownFlags ?? 0)) !== 0) return -EINVAL;
  if (row.payload !== undefined && input.get(row.payload.length) > row.payload.max) return -EINVAL;
  const texts: (Uint8Array | null)[] = [];
  for (const field of row.texts ?? []) {
    const text = input.text(field, flags);
    if (typeof text === "number") return text;
    texts.push(text);
  }
  const { service, process } = caller;
  for (const field of row.ids ?? []) {
    const id = input.get(field);
    if (id > 0 && !service.trusted.isKnownTo(process, id)) return -ENOKEY;
  }
  const target = row.buffer && targetOf(call, row.buffer, input, flags);
  const read = { service, process, arguments: input, flags, texts, payload: null, target };
  return row.payload === undefined ? finish(row.run(read), call, read) : runWithPayload(call, row, read, caller.owner);
};

const targetOf = (
  call: KeyCall,
  { address, length, ordinaryFlag }: NonNullable<KeyCommand["buffer"]>,
  input: KeyArguments,
  flags: number,
): GuestTarget =>
  new GuestTarget(call, {
    address: input.get(address),
    length: input.get(length),
    mayBeOrdinary: (flags & ordinaryFlag) === ordinaryFlag,
  });

interface Reading extends ReadCall {
  readonly target: GuestTarget | undefined;
}

/** What the guest is told: that its bytes did not arrive, rather than how many there were. */
const resultOf = (answer: number, { target, texts }: Reading): number => {
  for (const text of texts) text?.fill(0);
  const arrived = target?.result ?? 0;
  return arrived < 0 && answer >= 0 ? arrived : answer;
};

/** The answer, now or when it is there; a domain that goes meanwhile ends the wait. */
const answered = (answer: Answer, { signal }: KeyCall): number | Promise<number> => {
  if (typeof answer === "number") return answer;
  const interrupt = (): void => answer.interrupt();
  signal.addEventListener("abort", interrupt, { once: true });
  return answer.settled.finally(() => signal.removeEventListener("abort", interrupt));
};

const finish = (answer: Answer, call: KeyCall, read: Reading): number | Promise<number> => {
  const result = answered(answer, call);
  return typeof result === "number" ? resultOf(result, read) : result.then((later) => resultOf(later, read));
};

/** Carries an operation out whose payload is taken into secret memory first. */
const runWithPayload = (
  call: KeyCall,
  row: KeyCommand,
  read: Reading,
  owner: SecretOwner,
): number | Promise<number> => {
  const { address, length } = row.payload!;
  const given = {
    address: read.arguments.get(address),
    length: read.arguments.get(length),
    isSecret: (read.flags & XENKEYF_secret_payload) !== 0,
  };
  const payload = takePayload(call, owner, given);
  if (typeof payload === "number") return payload;
  if (payload === null) return finish(row.run(read), call, read);
  const answer = runWith(row, read, payload);
  if (typeof answer !== "number") return runLater(call, row, { read, payload, answer });
  payload[Symbol.dispose]();
  return resultOf(answer, read);
};

const runWith = (row: KeyCommand, read: Reading, payload: Secret): Answer =>
  payload.withBytes((bytes) => ({ answer: row.run({ ...read, payload: bytes }) })).answer;

/** An operation that waits, and its payload. */
interface Waiting {
  readonly read: Reading;
  readonly payload: Secret;
  readonly answer: Answer;
}

/**
 * The operation waits for a key under construction, and its payload is lent to it for the moment only: when it goes on it
 * finds an empty one, which is -EINVAL. So it is begun anew then, until it need not wait.
 */
const runLater = async (call: KeyCall, row: KeyCommand, { read, payload, answer }: Waiting): Promise<number> => {
  try {
    let current = answer;
    for (;;) {
      const result = await answered(current, call);
      if (call.signal.aborted) return -EINTR;
      if (typeof current === "number" || result !== -EINVAL) return resultOf(result, read);
      current = runWith(row, read, payload);
    }
  } finally {
    payload[Symbol.dispose]();
  }
};
