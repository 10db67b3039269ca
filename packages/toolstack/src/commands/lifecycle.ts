/**
 * Commands that end, stop or rename domains.
 */
import { XenolithError } from "@xenolith/abi/error";
import type { ClientFlags } from "../client/choose-place.ts";
import { connect, type Connection, type DomainAction } from "../client/connection.ts";
import type { DomainView } from "../daemon/api-types.ts";
import { complain } from "../terminal.ts";
import { asking, toEach } from "./report.ts";

/** Options of `xl shutdown` and `xl reboot`. */
export interface EndFlags extends ClientFlags {
  readonly all?: boolean;
  readonly force?: boolean;
  readonly wait?: boolean;
}

const DOM0 = 0;
const NOTICE_AFTER_MS = 1000;

/** `xl destroy`. */
export const destroyCommand = (words: readonly string[], flags: ClientFlags): Promise<number> => {
  const connection = connect(flags);
  return toEach(words, (word) => connection.destroy(word), undefined);
};

/** `xl pause`, `xl unpause`. */
export const actCommand = (words: readonly string[], action: DomainAction, flags: ClientFlags): Promise<number> => {
  const connection = connect(flags);
  return toEach(words, (word) => connection.act(word, action), flags.json);
};

/** `xl rename`. */
export const renameCommand = (word: string, name: string, flags: ClientFlags): Promise<number> => {
  const connection = connect(flags);
  return toEach([word], () => connection.rename(word, name), flags.json);
};

/** `xl shutdown`, `xl reboot`. */
export const endCommand = async (
  words: readonly string[],
  how: "shutdown" | "reboot",
  flags: EndFlags,
): Promise<number> => {
  if (flags.all === true ? words.length > 0 : words.length === 0) {
    throw new XenolithError("INVALID_ARGUMENT", `${how} takes domains, or --all and none`);
  }
  return asking(async () => {
    const connection = connect(flags);
    const all = flags.all === true ? (await connection.domains()).filter(({ domid }) => domid !== DOM0) : [];
    const targets = flags.all === true ? all.map(({ domid }) => String(domid)) : words;
    const waits: Promise<void>[] = [];
    const end = async (word: string): Promise<DomainView> => {
      const view = await connection.end(word, how, flags.force === true);
      if (flags.wait === true) waits.push(untilEnded(connection, view));
      return view;
    };
    const code = await toEach(targets, end, flags.json);
    await Promise.all(waits);
    return code;
  });
};

/**
 * Waits until this run of a domain is over. Looks once, then again at each event. A daemon that is gone has taken its
 * domains with it: they are threads of its process.
 */
const untilEnded = async (connection: Connection, { domid, name, generation }: DomainView): Promise<void> => {
  const end = new AbortController();
  const notice = setTimeout(() => complain(`waiting for domain ${domid}, ${name}, to end`), NOTICE_AFTER_MS);
  try {
    const { body } = await connection.events(end.signal);
    if (await isEnded(connection, domid, generation)) return;
    for await (const piece of body) {
      if (piece.length > 0 && (await isEnded(connection, domid, generation))) return;
    }
  } catch (error) {
    if (!(error instanceof XenolithError && error.code === "DAEMON_UNREACHABLE")) throw error;
  } finally {
    clearTimeout(notice);
    end.abort();
  }
};

const isEnded = async (connection: Connection, domid: number, generation: number): Promise<boolean> => {
  try {
    const { generation: now, state } = await connection.domain(String(domid));
    return now !== generation || state.shutdown || state.dying;
  } catch (error) {
    if (error instanceof XenolithError && error.code === "DOMAIN_NOT_FOUND") return true;
    throw error;
  }
};
