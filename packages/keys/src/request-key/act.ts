import { problemOf } from "./config.ts";
import type { Command, Rule } from "./config-line.ts";
import type { MacroValues } from "./macros.ts";
import { type Facts, selectRule, type WildcardForm } from "./select.ts";

/** Operations on keys with the rights of a helper. Results are as those of system calls. */
export interface HelperKeys {
  assumeAuthority(key: number): Promise<number>;
  /** "type;uid;gid;permissions;description" as a byte string, or a negated error number. */
  describe(key: number): Promise<string | number>;
  read(key: number): Promise<Uint8Array | number>;
  /** Finds a key in the requester's keyrings, and has none built. */
  find(type: string, description: string): Promise<number>;
  instantiate(key: number, payload: Uint8Array): Promise<number>;
}

/** How a program ended. */
export interface ProgramEnd {
  /** Undefined when a signal ended it. */
  readonly code: number | undefined;
  /** What it printed, if that was asked for; "too much" when it went over the limit. */
  readonly output: Uint8Array | "too much";
}

/** Starts programs with the rights of a helper. */
export interface Programs {
  /** Runs a program; words are byte strings, the first is what it is called. With an input its output is collected. */
  run(file: string, words: readonly string[], input: Uint8Array | undefined): Promise<ProgramEnd>;
}

/** What request-key(8) is called with. */
export interface KeyRequest {
  readonly operation: string;
  readonly key: number;
  readonly uid: string;
  readonly gid: string;
  readonly threadRing: string;
  readonly processRing: string;
  readonly sessionRing: string;
  /** The callout, when it need not be asked for. */
  readonly callout?: string | undefined;
}

/** Why a request came to nothing. The message never holds a description or payload. */
export class RequestFailed extends Error {
  override readonly name = "RequestFailed";
}

/** What a request is acted on with. */
export interface Acting {
  readonly rules: readonly Rule[];
  readonly wildcards?: WildcardForm;
  readonly keys: HelperKeys;
  readonly programs: Programs;
  /** Tells what was decided, for whoever debugs a configuration. */
  readonly trace?: (text: string) => void;
}

/** Where the assumed authority's callout is read. */
const ASSUMED = -7;
/** Most that the programs of `|` may print. */
export const OUTPUT_BYTES_MAX = 32_768;

/**
 * Has a key built as the configuration says. Fulfils with the exit code of the program that was run, or 0 when its
 * output has become the payload. Throws `RequestFailed`; then the key is left for the service to negate.
 */
export const actOn = async (request: KeyRequest, acting: Acting): Promise<number> => {
  const { keys } = acting;
  check("assume authority", await keys.assumeAuthority(request.key));
  const described = await keys.describe(request.key);
  if (typeof described === "number") throw refusedAt("describe the key", described);
  const callout = request.callout ?? latin1(await mustRead(keys, ASSUMED, "read the callout"));
  const values = valuesOf(request, described, callout);
  return await follow(values, acting, request.key);
};

/** What the macros stand for, from a request and the description of its key. */
export const valuesOf = (request: KeyRequest, described: string, callout: string): MacroValues => {
  const [, type = "", description = ""] = /^([^;]*);[^;]*;[^;]*;[^;]*;([^]*)$/.exec(described) ?? [];
  const { operation, uid, gid, threadRing, processRing, sessionRing } = request;
  const rings = { threadRing, processRing, sessionRing };
  return { operation, key: String(request.key), type, description, callout, uid, gid, ...rings };
};

/** The rule for a request; throws `RequestFailed` when there is none or it is malformed. */
export const ruleFor = (values: MacroValues, { rules, wildcards, trace }: Omit<Acting, "keys" | "programs">): Rule => {
  const facts: Facts = [values.operation, values.type, values.description, values.callout];
  const rule = selectRule(rules, facts, wildcards);
  if (rule === undefined) throw new RequestFailed(`${values.operation}: No matching action`);
  if (rule.problem !== undefined) throw new RequestFailed(problemOf(rule));
  trace?.(`${rule.file}:${rule.line}: chosen for ${values.operation}`);
  return rule;
};

const follow = async (values: MacroValues, acting: Acting, key: number): Promise<number> => {
  const rule = ruleFor(values, acting);
  const command = rule.command!;
  const words = await expand(command, values, { keys: acting.keys, rule });
  if (!command.isPipe) return (await acting.programs.run(command.program, words, undefined)).code ?? 1;
  const { code, output } = await acting.programs.run(command.program, words, Buffer.from(values.callout, "latin1"));
  if (output === "too much") {
    throw new RequestFailed(
      `${rule.file}:${rule.line}: ${command.program} printed more than ${OUTPUT_BYTES_MAX} bytes`,
    );
  }
  if (code === 0) {
    const result = await acting.keys.instantiate(key, output);
    output.fill(0);
    check("instantiate", result);
    return 0;
  }
  if (values.operation === "negate") throw new RequestFailed(`${rule.file}:${rule.line}: ${command.program} failed`);
  acting.trace?.(`${command.program} failed: looking for what negates the key`);
  return await follow({ ...values, operation: "negate" }, acting, key);
};

/** The words of a command, the program's own name first. */
const expand = async (
  command: Command,
  values: MacroValues,
  { keys, rule }: { readonly keys: HelperKeys; readonly rule: Rule },
): Promise<string[]> => {
  const words = [command.program.slice(command.program.lastIndexOf("/") + 1)];
  for (const argument of command.arguments) {
    if (argument.kind === "text") words.push(argument.text);
    else if (argument.kind === "value") words.push(values[argument.name]);
    else words.push(await contents(argument, keys, rule));
  }
  return words;
};

/** %{type:description}: what is in a key of the requester's, which must be text. */
const contents = async (
  { type, description }: { readonly type: string; readonly description: string },
  keys: HelperKeys,
  { file, line }: Rule,
): Promise<string> => {
  const place = `${file}:${line}: find the key of %{${type}:…}`;
  const key = await keys.find(type, description);
  check(place, key);
  const text = latin1(await mustRead(keys, key, place));
  if (!/^[\u0020-\u007e]*$/.test(text)) throw new RequestFailed(`${place}: its content is not printable`);
  return text;
};

const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");

const mustRead = async (keys: HelperKeys, key: number, what: string): Promise<Uint8Array> => {
  const bytes = await keys.read(key);
  if (typeof bytes === "number") throw refusedAt(what, bytes);
  return bytes;
};

const refusedAt = (what: string, result: number): RequestFailed => new RequestFailed(`${what}: error ${-result}`);

const check = (what: string, result: number): void => {
  if (result < 0) throw refusedAt(what, result);
};
