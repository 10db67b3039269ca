/**
 * Programs as children of this process, without a copy of this process: fork(2), which Node uses, copies all page tables, and
 * both sides then fault on page after page. posix_spawn(3) costs the same however large the process is.
 *
 * Node knows nothing of these children. Whoever starts one asks for its end, as upon every SIGCHLD; until then what is left
 * of it, a zombie, keeps its number from being given to another process.
 *
 * Source: posix_spawn(3), posix_spawn_file_actions_addopen(3), posix_spawnattr_setflags(3), waitpid(2).
 */
import assert from "node:assert/strict";
import { constants as fileConstants } from "node:fs";
import { constants } from "node:os";
import { lazily } from "./lazily.ts";
import { bind, NativeBuffer, retried } from "./libc.ts";

/** What is started, and with what. Texts are UTF-8 or bytes; one that holds a NUL is refused. */
export interface Program {
  /** The file; no directories are searched for it. */
  readonly file: string | Uint8Array;
  /** Its argv, its name first. */
  readonly words: readonly (string | Uint8Array)[];
  /** All of its environment, as NAME=value. */
  readonly environment: readonly (string | Uint8Array)[];
  /** Where it starts. */
  readonly directory: string | Uint8Array;
  /** Descriptors of this process that become its standard input, output and error; null for /dev/null. */
  readonly descriptors: readonly [input: number | null, output: number | null, error: number | null];
}

/** How a program ended: by itself with a code, or by a signal with that number. */
export type ProgramEnd = { readonly code: number } | { readonly signal: number };

/** Opaque structures, of 80 and 336 bytes in glibc and musl, with room to spare. */
const ACTIONS_BYTES = 256;
const ATTRIBUTES_BYTES = 1024;
const SIGNAL_SET_BYTES = 128;
const POINTER_BYTES = 8;

const POSIX_SPAWN_SETSIGDEF = 0x04;
const POSIX_SPAWN_SETSIGMASK = 0x08;
const POSIX_SPAWN_SETSID = 0x80;
const FLAGS = POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID;
/** Signals 1 to 31: all but those of real time, of which libraries keep some for themselves. */
const ORDINARY_SIGNALS = 0x7fff_ffff;
const WNOHANG = 1;
/** Below it are the descriptors that are replaced one after the other. */
const FIRST_OWN_DESCRIPTOR = 3;

const { EINVAL } = constants.errno;

const posix_spawn = bind("int posix_spawn(uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t, uintptr_t)");
const actionsInit = bind("int posix_spawn_file_actions_init(uintptr_t)");
const actionsDestroy = bind("int posix_spawn_file_actions_destroy(uintptr_t)");
const addDup2 = bind("int posix_spawn_file_actions_adddup2(uintptr_t, int, int)");
const addOpen = bind("int posix_spawn_file_actions_addopen(uintptr_t, int, uintptr_t, int, int)");
const addChdir = bind("int posix_spawn_file_actions_addchdir_np(uintptr_t, uintptr_t)");
const addCloseFrom = bind("int posix_spawn_file_actions_addclosefrom_np(uintptr_t, int)");
const attributesInit = bind("int posix_spawnattr_init(uintptr_t)");
const setFlags = bind("int posix_spawnattr_setflags(uintptr_t, short)");
const setDefaults = bind("int posix_spawnattr_setsigdefault(uintptr_t, uintptr_t)");
const setMask = bind("int posix_spawnattr_setsigmask(uintptr_t, uintptr_t)");
const waitpid = bind("int waitpid(int, uintptr_t, int)");

const isBound = (bound: () => unknown): boolean => {
  try {
    bound();
    return true;
  } catch {
    return false;
  }
};

/** Whether the C library can start a program in a directory: glibc from 2.29 on, musl from 1.1.24 on. */
export const canStartPrograms = lazily(() => isBound(posix_spawn) && isBound(addChdir));

/** From 2.34 on glibc closes what else is open; before, and with musl, only what closes on exec, as all does that Node opens. */
const canCloseRest = lazily(() => isBound(addCloseFrom));

/**
 * Starts a program as the leader of a session of its own, with all signals as they are at first. Returns when it runs: its
 * process number, or a negative errno (`ENOENT`, `EACCES`, `E2BIG`, `EAGAIN` when there is no room for another process).
 */
export const startProgram = (program: Program): number => {
  const memory = new ProgramMemory(program);
  if (memory.holdsNul) return -EINVAL;
  const { actions, attributes, processNumber } = memory;
  // SAFETY: both structures have room for more than the library writes; it copies the texts that are added.
  const failure =
    check(actionsInit()(actions)) ||
    check(attributesInit()(attributes)) ||
    describeActions(program.descriptors, memory) ||
    describeAttributes(memory) ||
    // SAFETY: all texts end with a NUL and both lists with a null pointer; the memory stays as it is until the call returns,
    // which is when the program has been executed.
    check(posix_spawn()(processNumber, memory.file, actions, attributes, memory.words, memory.environment));
  // SAFETY: it was initialised, and is not used any more. Attributes need no end.
  actionsDestroy()(actions);
  const started = memory.startedNumber;
  // Words and environment may have been secrets.
  memory.wipe();
  return failure === 0 ? started : -failure;
};

/** These functions answer with the error number itself. */
const check = (result: number | bigint): number => Number(result);

const describeActions = (
  descriptors: Program["descriptors"],
  { actions, directory, nothing }: ProgramMemory,
): number => {
  for (const [target, descriptor] of descriptors.entries()) {
    assert(descriptor === null || descriptor >= FIRST_OWN_DESCRIPTOR, "a descriptor that is replaced itself");
    const failure =
      descriptor === null
        ? // SAFETY: the path is a text that ends with a NUL.
          check(addOpen()(actions, target, nothing, fileConstants.O_RDWR, 0))
        : // SAFETY: no memory but the structure.
          check(addDup2()(actions, descriptor, target));
    if (failure !== 0) return failure;
  }
  // SAFETY: the same.
  const failure = canCloseRest() ? check(addCloseFrom()(actions, FIRST_OWN_DESCRIPTOR)) : 0;
  return failure === 0 ? check(addChdir()(actions, directory)) : failure;
};

const describeAttributes = ({ attributes, ordinarySignals, noSignals }: ProgramMemory): number =>
  // SAFETY: the sets are as large as the library's.
  check(setDefaults()(attributes, ordinarySignals)) ||
  check(setMask()(attributes, noSignals)) ||
  check(setFlags()(attributes, FLAGS));

/** All memory that the library is given for one start. */
class ProgramMemory {
  readonly actions: number;
  readonly attributes: number;
  readonly ordinarySignals: number;
  readonly noSignals: number;
  readonly processNumber: number;
  readonly file: number;
  readonly directory: number;
  /** The path of what swallows everything. */
  readonly nothing: number;
  readonly words: number;
  readonly environment: number;
  readonly holdsNul: boolean;
  readonly #buffer: NativeBuffer;
  #usedBytes = 0;

  constructor({ file, directory, words, environment }: Program) {
    const [fileText, directoryText, wordTexts, environmentTexts] = [
      textOf(file),
      textOf(directory),
      words.map(textOf),
      environment.map(textOf),
    ];
    const nothingText = textOf("/dev/null");
    const texts = [fileText, directoryText, nothingText, ...wordTexts, ...environmentTexts];
    const pointers = wordTexts.length + environmentTexts.length + 2;
    this.#buffer = new NativeBuffer(
      ACTIONS_BYTES +
        ATTRIBUTES_BYTES +
        2 * SIGNAL_SET_BYTES +
        POINTER_BYTES * (pointers + 1) +
        texts.reduce((sum, text) => sum + text.length + 1, 0),
    );
    this.actions = this.#take(ACTIONS_BYTES);
    this.attributes = this.#take(ATTRIBUTES_BYTES);
    this.noSignals = this.#take(SIGNAL_SET_BYTES);
    this.ordinarySignals = this.#take(SIGNAL_SET_BYTES);
    this.#buffer.view.setUint32(this.ordinarySignals - this.#buffer.address, ORDINARY_SIGNALS, true);
    this.processNumber = this.#take(POINTER_BYTES);
    this.words = this.#take(POINTER_BYTES * (wordTexts.length + 1));
    this.environment = this.#take(POINTER_BYTES * (environmentTexts.length + 1));
    this.file = this.#put(fileText);
    this.directory = this.#put(directoryText);
    this.nothing = this.#put(nothingText);
    this.#list(this.words, wordTexts);
    this.#list(this.environment, environmentTexts);
    this.holdsNul = texts.some((text) => text.includes(0));
  }

  /** The number that the library wrote. */
  get startedNumber(): number {
    return this.#buffer.view.getInt32(this.processNumber - this.#buffer.address, true);
  }

  wipe(): void {
    this.#buffer.bytes.fill(0);
  }

  #take(sizeBytes: number): number {
    const at = this.#buffer.address + this.#usedBytes;
    this.#usedBytes += sizeBytes;
    return at;
  }

  #put(text: Uint8Array): number {
    this.#buffer.bytes.set(text, this.#usedBytes);
    return this.#take(text.length + 1);
  }

  #list(at: number, texts: readonly Uint8Array[]): void {
    for (const [index, text] of texts.entries()) {
      const offset = at - this.#buffer.address + POINTER_BYTES * index;
      this.#buffer.view.setBigUint64(offset, BigInt(this.#put(text)), true);
    }
  }
}

const encoder = new TextEncoder();

const textOf = (text: string | Uint8Array): Uint8Array => (typeof text === "string" ? encoder.encode(text) : text);

/** How a child of this process ended; undefined while it runs. A negative errno: `ECHILD` when it is none, or was asked for before. */
export const programEnd = (processNumber: number): ProgramEnd | undefined | number => {
  assert(Number.isSafeInteger(processNumber) && processNumber > 0);
  const { address, view } = statusWord();
  // SAFETY: the kernel writes one int.
  const found = retried(() => waitpid()(processNumber, address, WNOHANG));
  if (found <= 0) return found === 0 ? undefined : found;
  const status = view.getInt32(0, true);
  const signal = status & 0x7f;
  return signal === 0 ? { code: (status >> 8) & 0xff } : { signal };
};

const statusWord = lazily(() => new NativeBuffer(4));
