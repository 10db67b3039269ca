/**
 * Actions that a caller can bound: by an AbortSignal and by time.
 */
import { XenolithError } from "@xenolith/abi";

/** Bounds of one action. */
export interface ActionOptions {
  /** Gives the action up when it fires. */
  readonly signal?: AbortSignal;
  /** Gives the action up after this time in milliseconds. */
  readonly timeoutMs?: number;
}

/** Longest delay that a timer of Node keeps. */
const TIMEOUT_MS_MAX = 2 ** 31 - 1;

/**
 * Settles as `work` does, unless the caller's bounds are reached before. `giveUp` is called then; `work` goes on or
 * not, as it sees fit, and what becomes of it is ignored.
 *
 * @throws XenolithError `ABORTED`, `TIMEOUT`, or what `work` is rejected with.
 */
export const bounded = async <T>(
  what: string,
  work: Promise<T>,
  options: ActionOptions = {},
  giveUp: () => void = () => {},
): Promise<T> => {
  const { signal, timeoutMs } = options;
  if (signal === undefined && timeoutMs === undefined) return work;
  const limit = createLimit(what, options);
  try {
    return await Promise.race([work, limit.reached]);
  } catch (error) {
    if (error === limit.error()) giveUp();
    throw error;
  } finally {
    limit.dispose();
    work.catch(() => {});
  }
};

/** Throws when the bounds make no sense or are reached already. */
export const checkBounds = (what: string, { signal, timeoutMs }: ActionOptions = {}): void => {
  if (timeoutMs !== undefined && !(timeoutMs >= 0)) {
    throw new XenolithError("INVALID_ARGUMENT", `timeout of ${what} is ${timeoutMs} ms, it must not be negative`);
  }
  if (signal?.aborted === true) throw aborted(what, signal);
};

interface Limit {
  readonly reached: Promise<never>;
  /** What it was reached with. */
  error(): XenolithError | undefined;
  dispose(): void;
}

const createLimit = (what: string, { signal, timeoutMs }: ActionOptions): Limit => {
  const { promise, reject } = withRejecter();
  let error: XenolithError | undefined;
  const reach = (reason: XenolithError): void => {
    error = reason;
    reject(reason);
  };
  const onAbort = (): void => reach(aborted(what, signal));
  const timer =
    timeoutMs === undefined || timeoutMs > TIMEOUT_MS_MAX
      ? undefined
      : setTimeout(() => reach(new XenolithError("TIMEOUT", `${what} took longer than ${timeoutMs} ms`)), timeoutMs);
  signal?.addEventListener("abort", onAbort);
  if (signal?.aborted === true) onAbort();
  return {
    reached: promise,
    error: () => error,
    dispose: () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
    },
  };
};

const aborted = (what: string, signal: AbortSignal | undefined): XenolithError =>
  new XenolithError("ABORTED", `${what} was aborted`, { cause: signal?.reason });

const withRejecter = (): { promise: Promise<never>; reject: (reason: unknown) => void } => {
  let reject: (reason: unknown) => void = () => {};
  const promise = new Promise<never>((_, rejectPromise) => (reject = rejectPromise));
  promise.catch(() => {});
  return { promise, reject };
};
