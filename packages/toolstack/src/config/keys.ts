/**
 * The keys of a domain's configuration, with xl.cfg(5)'s names where Xen has the same thing. This table is the validator,
 * the JSON Schema and the reference page: each is made from it.
 */
/** A size: a number is MiB, as in xl; text may have K, M, G or KiB, MiB, GiB behind it. */
export type Size = number | string;

/** What to do when a domain ends. */
export type EndAction = "destroy" | "restart" | "rename-restart" | "preserve" | "coredump-destroy" | "coredump-restart";

/** A configuration as it is written, in TOML or JSON. */
export interface ConfigDocument {
  readonly name: string;
  readonly kernel: string;
  readonly memory?: Size;
  readonly maxmem?: Size;
  readonly memory_min?: Size;
  readonly weight?: number;
  readonly squeeze?: "off" | "zero-pages";
  readonly secret_memory?: Size;
  readonly device_model_memory?: Size;
  readonly device_model_for?: string;
  readonly seclabel?: string;
  readonly vcpus?: number;
  readonly cmdline?: string;
  readonly root?: string;
  readonly extra?: string;
  readonly args?: readonly string[];
  readonly environment?: Readonly<Record<string, string>>;
  readonly directories?: readonly string[];
  readonly keys?: Readonly<Record<string, string>>;
  readonly on_poweroff?: EndAction;
  readonly on_reboot?: EndAction;
  readonly on_crash?: EndAction;
  readonly on_watchdog?: EndAction;
  readonly autostart?: boolean;
  readonly preemptible?: boolean;
}

/** The form of a text. */
export interface TextForm {
  /** Most bytes of UTF-8. */
  readonly bytesMax: number;
  /** May be empty. */
  readonly empty?: boolean;
  /** A regular expression, in the common part of ECMA-262 and JSON Schema, and what it means in words. */
  readonly pattern?: { readonly source: string; readonly meaning: string };
}

/** What values a key takes. */
export type ValueForm =
  | ({ readonly kind: "text" } & TextForm)
  | { readonly kind: "texts"; readonly countMax: number; readonly item: TextForm }
  | { readonly kind: "variables"; readonly countMax: number; readonly key: TextForm; readonly value: TextForm }
  | { readonly kind: "size"; readonly zero: boolean }
  | { readonly kind: "count"; readonly from: number; readonly to: number }
  | { readonly kind: "flag" }
  | { readonly kind: "choice"; readonly values: readonly string[] };

/** One key. */
export interface KeySpec {
  readonly form: ValueForm;
  /** Whether there must be one. */
  readonly required?: true;
  /** What holds without it, in words of a configuration; undefined: see the description. */
  readonly default?: string;
  /** One or two sentences. */
  readonly description: string;
}

/** Domains' names: usable in xenstore paths, URLs and tables, and never taken for a domid. */
export const NAME_FORM: TextForm = {
  bytesMax: 63,
  pattern: {
    source: "^(?!\\d+$)[A-Za-z0-9_][A-Za-z0-9_.+-]*$",
    meaning: "letters, digits and _ . + -, beginning with a letter, a digit or _, and not digits alone",
  },
};

/** Most bytes of a configuration file, and of one in JSON. */
export const CONFIG_BYTES_MAX = 65_536;
/** Secret memory that a domain may have by default. */
export const SECRET_MEMORY_DEFAULT = "64KiB";
/** Weight that a domain has by default. */
export const WEIGHT_DEFAULT = 256;

const PATH_BYTES_MAX = 4095;
const KEY_DESCRIPTION_BYTES_MAX = 4095;
const COMMAND_LINE_BYTES_MAX = 1023;
const WORD_BYTES_MAX = 4096;
const NO_ZERO_BYTE = { source: "^[^\\u0000]*$", meaning: "text without zero bytes" };

const size = (zero = false): ValueForm => ({ kind: "size", zero });
const words = (bytesMax: number): ValueForm => ({ kind: "text", bytesMax, empty: true, pattern: NO_ZERO_BYTE });

const END_ACTIONS: readonly EndAction[] = [
  "destroy",
  "restart",
  "rename-restart",
  "preserve",
  "coredump-destroy",
  "coredump-restart",
];
const onEnd = (event: string, value: EndAction): KeySpec => ({
  form: { kind: "choice", values: END_ACTIONS },
  default: `"${value}"`,
  description: `What to do when the domain ${event}. \`preserve\` keeps it as it is, to look at; \`rename-restart\` keeps it under another name and starts a new one. The \`coredump-\` actions are refused as long as there is no dump of memory.`,
});

/** All keys, in the order of the reference page. */
export const CONFIG_KEYS: Readonly<Record<keyof ConfigDocument, KeySpec>> = {
  name: {
    form: { kind: "text", ...NAME_FORM },
    required: true,
    description: "Name of the domain. No two domains have the same.",
  },
  kernel: {
    form: { kind: "text", bytesMax: PATH_BYTES_MAX, pattern: NO_ZERO_BYTE },
    required: true,
    description: "The module to run: a `.wasm` file. A relative path begins where the configuration file is.",
  },
  memory: {
    form: size(),
    default: "256",
    description: "Memory that the domain starts with, and that the memory manager gives it when there is enough.",
  },
  maxmem: {
    form: size(),
    description: "Memory up to which `xl mem-set` may raise it. `memory` by default.",
  },
  memory_min: {
    form: size(),
    description:
      "Memory that the memory manager leaves it when the host is short. `memory` by default: it is left alone.",
  },
  weight: {
    form: { kind: "count", from: 1, to: 65_535 },
    default: String(WEIGHT_DEFAULT),
    description: "Its part of what there is between `memory_min` and `memory`, in proportion to the weights of others.",
  },
  squeeze: {
    form: { kind: "choice", values: ["off", "zero-pages"] },
    default: '"off"',
    description:
      "What is taken from a guest without a balloon driver when the machine is short: nothing, or the machine memory behind pages in which every byte is zero, which the guest does not notice.",
  },
  secret_memory: {
    form: size(true),
    default: `"${SECRET_MEMORY_DEFAULT}"`,
    description:
      "Secret memory that it may have by `secret_op`, and as much of its own and others' that it may have mapped. It is no part of `memory`; 0: none.",
  },
  device_model_memory: {
    form: size(true),
    default: "0",
    description: "By how much its device models may raise its memory limit, together.",
  },
  device_model_for: {
    form: { kind: "text", ...NAME_FORM },
    description:
      "Name of the domain whose device model this one is: it may act on that one's memory and devices, and no other's.",
  },
  seclabel: {
    form: {
      kind: "text",
      bytesMax: 63,
      pattern: { source: "^[A-Za-z0-9_.:-]+$", meaning: "letters, digits and _ . : -" },
    },
    description: "Label by which rules of the operator's policy are about it.",
  },
  vcpus: {
    form: { kind: "count", from: 1, to: 32 },
    default: "1",
    description: "Virtual CPUs.",
  },
  cmdline: {
    form: words(COMMAND_LINE_BYTES_MAX),
    default: '""',
    description: "Command line of a Xen-style guest (`start_info.cmd_line`).",
  },
  root: {
    form: words(COMMAND_LINE_BYTES_MAX),
    description: "Makes the command line `root=ROOT EXTRA`, as in xl. Not together with `cmdline`.",
  },
  extra: {
    form: words(COMMAND_LINE_BYTES_MAX),
    description: "What stands behind `root` in the command line, or alone. Not together with `cmdline`.",
  },
  args: {
    form: { kind: "texts", countMax: 1024, item: { bytesMax: WORD_BYTES_MAX, empty: true, pattern: NO_ZERO_BYTE } },
    default: "[]",
    description: "Arguments of a WASI guest, after the program's name.",
  },
  environment: {
    form: {
      kind: "variables",
      countMax: 1024,
      key: { bytesMax: 255, pattern: { source: "^[^=\\u0000]+$", meaning: "a name without = and zero bytes" } },
      value: { bytesMax: WORD_BYTES_MAX, empty: true, pattern: NO_ZERO_BYTE },
    },
    default: "{}",
    description: "Environment of a WASI guest; it has nothing of the daemon's own.",
  },
  directories: {
    form: {
      kind: "texts",
      countMax: 64,
      item: {
        bytesMax: 2 * PATH_BYTES_MAX,
        pattern: { source: "^[^\\u0000]+?::[^\\u0000]+$", meaning: "HOST::GUEST or HOST::GUEST:ro" },
      },
    },
    default: "[]",
    description:
      "Directories that a WASI guest may use, each `HOST::GUEST`, with `:ro` behind it to only read. A relative HOST begins where the configuration file is.",
  },
  keys: {
    form: {
      kind: "variables",
      countMax: 64,
      key: { bytesMax: KEY_DESCRIPTION_BYTES_MAX, pattern: NO_ZERO_BYTE },
      value: { bytesMax: PATH_BYTES_MAX, pattern: NO_ZERO_BYTE },
    },
    default: "{}",
    description:
      'Keys that it is given before it starts, of type user: `"db:orders" = "orders.key"` has the bytes of the file, which go straight into secret memory. A relative path begins where the configuration file is.',
  },
  on_poweroff: onEnd("powers itself off, or its program ends", "destroy"),
  on_reboot: onEnd("reboots", "restart"),
  on_crash: onEnd("crashes", "destroy"),
  on_watchdog: onEnd("lets a watchdog run out", "destroy"),
  autostart: {
    form: { kind: "flag" },
    default: "false",
    description: "Whether the daemon starts it when it starts itself.",
  },
  preemptible: {
    form: { kind: "flag" },
    default: "false",
    description:
      "Whether it can be paused while it computes, which costs speed; else a pause waits for its next hypercall.",
  },
};
