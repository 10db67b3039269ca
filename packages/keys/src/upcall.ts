import type { Process } from "./process.ts";

/** A key that somebody outside of the service shall build. */
export interface Upcall {
  readonly operation: "create";
  /** Serial of the key. */
  readonly target: number;
  /** The helper's arguments after its name: operation, key, user, group, thread, process and session keyring, in decimals. */
  readonly argv: readonly string[];
  /** All of its environment. */
  readonly env: Readonly<Record<string, string>>;
  /**
   * Credentials of the helper: user 0, and a session keyring that holds the authority. The service lets go of them when
   * `run` is through; a child that outlives it needs a fork of them.
   */
  readonly helper: Process;
  /** Fires when the helper took longer than the service allows. */
  readonly signal: AbortSignal;
}

/** Whoever starts helpers. */
export interface UpcallActor {
  /**
   * Runs a helper to its end. The promise fulfils with 0 or more when it ran, however it ended, and with a negated error
   * number when it could not be started. A rejection counts as -EIO.
   */
  run(upcall: Upcall): Promise<number>;
}

/** The environment of every helper. Source: request-key(8), what Linux 6 starts it with. */
export const UPCALL_ENVIRONMENT: Readonly<Record<string, string>> = {
  HOME: "/",
  PATH: "/sbin:/bin:/usr/sbin:/usr/bin",
};
