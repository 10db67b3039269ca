/**
 * Asks the daemon. Nothing that the daemon says is believed before it is read: an answer may be
 * late, long or no JSON at all.
 */
import type http from "node:http";
import { type ErrorCode, errorCodes, XenolithError } from "@xenolith/abi/error";
import type { DaemonPlace } from "./place.ts";

/** Most bytes of one answer: lists of as many domains as a host can have are far below. */
export const ANSWER_BYTES_MAX = 64 * 2 ** 20;
const WAITING_AFTER_MS = 1000;
const SHOWN_LENGTH_MAX = 80;

/** A question for the daemon. */
export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  /** Path with query; parts that come from people are encoded with `encodeURIComponent`. */
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  /** Sent as they are. */
  readonly bytes?: Buffer;
  readonly signal?: AbortSignal;
}

/** An answer whose body is yet to come. */
export interface ApiStream {
  readonly status: number;
  readonly body: AsyncIterable<Buffer>;
}

/** How the client tells that an answer takes more than a second. */
export type OnWaiting = (message: string) => void;

/** Talks to one daemon. */
export class ApiClient {
  readonly #place: DaemonPlace;
  readonly #onWaiting: OnWaiting;

  constructor(place: DaemonPlace, onWaiting: OnWaiting = () => {}) {
    this.#place = place;
    this.#onWaiting = onWaiting;
  }

  /**
   * Asks and returns the JSON of the answer, of which only that it is an object with `members` is sure; null when the
   * answer is empty.
   *
   * @throws XenolithError `DAEMON_UNREACHABLE`, `DAEMON_ANSWER`, or the code that the daemon refused with.
   */
  async ask<Answer>(request: ApiRequest, members: readonly (keyof Answer & string)[] = []): Promise<Answer> {
    const notice = setTimeout(
      () => this.#onWaiting(`waiting for the daemon at ${this.#place.name} (Ctrl-C ends the wait, not what it does)`),
      WAITING_AFTER_MS,
    );
    try {
      const message = await this.#send(request);
      const text = await this.#readText(message);
      const status = message.statusCode!;
      if (status < 200 || status >= 300) throw this.#refusal(status, this.#parse(text, status));
      const value: Answer = this.#parse(text === "" ? "null" : text, status);
      const missing = members.find((member) => !(isRecord(value) && Object.hasOwn(value, member)));
      if (missing !== undefined)
        throw answerError(`the daemon's answer has no "${missing}": is it of another version?`);
      return value;
    } finally {
      clearTimeout(notice);
    }
  }

  /**
   * Asks for an answer that comes piece by piece: a console, events.
   *
   * @throws XenolithError as `ask`; so does reading the body.
   */
  async open(request: ApiRequest): Promise<ApiStream> {
    const message = await this.#send(request);
    const status = message.statusCode!;
    if (status >= 200 && status < 300) return { status, body: this.#pieces(message) };
    throw this.#refusal(status, this.#parse(await this.#readText(message), status));
  }

  async #send({ method, path, body, bytes, signal }: ApiRequest): Promise<http.IncomingMessage> {
    const content = bytes ?? (body === undefined ? undefined : Buffer.from(JSON.stringify(body)));
    const type = bytes === undefined ? "application/json" : "application/octet-stream";
    const headers = {
      accept: "application/json",
      ...(content === undefined ? {} : { "content-type": type, "content-length": content.length }),
    };
    const options = { method, path, headers, ...(signal === undefined ? {} : { signal }) };
    const begin = await this.#place.open();
    try {
      return await new Promise((resolve, reject) => begin(options, resolve).on("error", reject).end(content));
    } catch (error) {
      throw this.#failure(error);
    }
  }

  async #readText(message: http.IncomingMessage): Promise<string> {
    const chunks: Buffer[] = [];
    let bytes = 0;
    for await (const chunk of this.#pieces(message)) {
      bytes += chunk.length;
      if (bytes > ANSWER_BYTES_MAX) {
        message.destroy();
        throw answerError(`the daemon's answer is over ${ANSWER_BYTES_MAX} bytes, the limit`);
      }
      chunks.push(chunk);
    }
    return Buffer.concat(chunks).toString("utf8");
  }

  async *#pieces(message: http.IncomingMessage): AsyncGenerator<Buffer, void, undefined> {
    try {
      for await (const chunk of message) yield Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk));
    } catch (error) {
      throw this.#failure(error);
    }
  }

  #parse(text: string, status: number): ReturnType<typeof JSON.parse> {
    try {
      return JSON.parse(text);
    } catch (cause) {
      throw answerError(
        `${this.#place.name} does not speak the daemon's language: status ${status}, ${JSON.stringify(text.slice(0, SHOWN_LENGTH_MAX))}`,
        cause,
      );
    }
  }

  #refusal(status: number, body: unknown): XenolithError {
    const { code, message, remedy } = refusalIn(body);
    const { tokenRemedy } = this.#place;
    const advice = code === "UNAUTHORISED" && tokenRemedy !== "" ? ` (${tokenRemedy})` : remedy;
    if (code !== undefined && message !== undefined) return new XenolithError(code, `${message}${advice}`);
    return answerError(
      `the daemon refused with status ${status}: ${(JSON.stringify(body) ?? "").slice(0, SHOWN_LENGTH_MAX)}`,
    );
  }

  #failure(cause: unknown): XenolithError {
    if (cause instanceof XenolithError) return cause;
    const code = codeOf(cause);
    const reason = cause instanceof Error ? cause.message : String(cause);
    if (code === "ABORT_ERR") return new XenolithError("ABORTED", "the question was withdrawn", { cause });
    if (code.startsWith("HPE_")) return answerError(`${this.#place.name} does not speak HTTP (${reason})`, cause);
    const explanation = this.#place.explain(code, reason);
    return unreachable(explanation ?? `the daemon at ${this.#place.name} broke off: ${reason}`, cause);
  }
}

const answerError = (message: string, cause?: unknown): XenolithError =>
  new XenolithError("DAEMON_ANSWER", message, { cause });
const unreachable = (message: string, cause: unknown): XenolithError =>
  new XenolithError("DAEMON_UNREACHABLE", message, { cause });

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null;

const codeOf = (error: unknown): string => {
  const code = isRecord(error) ? error["code"] : undefined;
  return typeof code === "string" ? code : "";
};

const isErrorCode = (code: unknown): code is ErrorCode => typeof code === "string" && Object.hasOwn(errorCodes, code);

/** A remedy that is about requests helps nobody who uses commands. */
const ABOUT_REQUESTS = /^(?:GET|send) /;

/** What a refusal says: at the top of the body, or in its `error`. The remedy stands in brackets. */
const refusalIn = (
  body: unknown,
): { readonly code: ErrorCode | undefined; readonly message: string | undefined; readonly remedy: string } => {
  const outer = isRecord(body) ? body : {};
  const inner = isRecord(outer["error"]) ? outer["error"] : outer;
  const { code, message, remedy } = inner;
  const isUseful = typeof remedy === "string" && remedy !== "" && !ABOUT_REQUESTS.test(remedy);
  return {
    code: isErrorCode(code) ? code : undefined,
    message: typeof message === "string" ? message : undefined,
    remedy: isUseful ? ` (${remedy})` : "",
  };
};
