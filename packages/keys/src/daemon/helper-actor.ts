import { constants } from "node:os";
import { SOCKET_VARIABLE } from "../client/socket-path.ts";
import type { Process } from "../process.ts";
import { actOn, type KeyRequest, RequestFailed } from "../request-key/act.ts";
import { type ConfigPlaces, loadConfig } from "../request-key/config.ts";
import type { Launch } from "../request-key/launch.ts";
import { ChildPrograms } from "../request-key/programs.ts";
import type { KeyService } from "../service.ts";
import type { Upcall, UpcallActor } from "../upcall.ts";
import { localKeys } from "./local-keys.ts";
import type { Log } from "./log.ts";
import type { DaemonMetrics } from "./metrics.ts";

/** How helpers are started. */
export interface HelperOptions {
  /** The rules, which are read anew for every key. */
  readonly config: ConfigPlaces;
  /** A program to be called as the kernel calls /sbin/request-key, instead of following the rules here. */
  readonly program: readonly string[] | undefined;
  /** Where helpers find the daemon. */
  readonly socket: string;
  /** How programs are started; Node's way if undefined. */
  readonly launch: Launch | undefined;
  /** Directories in front of the helpers' PATH. */
  readonly path: readonly string[];
  /** Directories behind it. */
  readonly pathAfter: readonly string[];
  readonly log: Log;
  readonly metrics: DaemonMetrics;
  /** Tells of a process that was started with the rights of a helper. */
  readonly adopt: (pid: number, helper: Process) => void;
  /** Tells that it has ended. */
  readonly release: (pid: number) => void;
}

/** Helpers that run at once; further ones wait for their turn. */
const HELPERS_MAX = 256;

const { errno: numbers } = constants;

/** Starts helpers for the daemon: it chooses by the rules of request-key.conf(5) which, and runs that one program. */
export class HelperActor implements UpcallActor {
  readonly #options: HelperOptions;
  #service: KeyService | undefined;
  #running = 0;
  readonly #queue: (() => void)[] = [];

  constructor(options: HelperOptions) {
    this.#options = options;
  }

  /** The service whose keys are built; it is made with this actor, so it cannot be given before. */
  serve(service: KeyService): void {
    this.#service = service;
  }

  async run(upcall: Upcall): Promise<number> {
    const { metrics, log } = this.#options;
    if (this.#running >= HELPERS_MAX) await new Promise<void>((resolve) => this.#queue.push(resolve));
    this.#running += 1;
    metrics.upcalls += 1;
    metrics.upcallsTotal += 1;
    try {
      const code = await this.#start(upcall);
      log.event("debug", "helper ended", { key: upcall.target, code });
      return code;
    } catch (error) {
      // A failure of ours is logged; the key is negated either way.
      const reason = error instanceof Error ? error.message : String(error);
      log.event("warning", "key not built", { key: upcall.target, reason });
      return error instanceof RequestFailed && error.cause !== undefined ? startFailure(error.cause) : 1;
    } finally {
      this.#running -= 1;
      metrics.upcalls -= 1;
      this.#queue.shift()?.();
    }
  }

  async #start(upcall: Upcall): Promise<number> {
    const { program, config, log } = this.#options;
    // It may have waited for its turn for too long: then its credentials are gone.
    if (upcall.signal.aborted) throw new RequestFailed("not begun, the request was given up");
    const programs = this.#programsFor(upcall);
    if (program !== undefined) {
      const [file = "", ...rest] = program;
      const name = file.slice(file.lastIndexOf("/") + 1);
      return (await programs.run(file, [name, ...rest, ...upcall.argv], undefined)).code ?? 1;
    }
    const rules = loadConfig(config);
    const keys = localKeys(this.#service!, upcall.helper);
    const trace = (text: string): void => log.event("debug", "request-key", { key: upcall.target, text });
    return await actOn(requestFrom(upcall), { rules, keys, programs, trace });
  }

  #programsFor({ helper, env, signal, target }: Upcall): ChildPrograms {
    const { socket, launch, path, pathAfter, adopt, release, log } = this.#options;
    const PATH = [...path, env["PATH"] ?? "", ...pathAfter].join(":");
    const onError = (line: string): void => log.event("info", "helper says", { key: target, line });
    return new ChildPrograms({
      environment: { ...env, PATH, [SOCKET_VARIABLE]: socket },
      onStart: (pid) => adopt(pid, helper),
      onEnd: release,
      signal,
      ...(launch === undefined ? {} : { launch }),
      // What helpers say may name keys.
      ...(log.descriptions ? { onError } : {}),
    });
  }
}

/** What the service says on a helper's command line, as a request. */
const requestFrom = ({ argv, target }: Upcall): KeyRequest => {
  const [operation = "", , uid = "", gid = "", threadRing = "", processRing = "", sessionRing = ""] = argv;
  return { operation, key: target, uid, gid, threadRing, processRing, sessionRing };
};

/** Why a program could not be started: the kernel's own error number. */
const startFailure = (cause: unknown): number => {
  const code = cause instanceof Error && "code" in cause ? cause.code : undefined;
  const name = typeof code === "string" && code in numbers ? code : "EIO";
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return -numbers[name as keyof typeof numbers];
};
