/**
 * The commands of `xl`. A command's own code is loaded when it is called, so that those which only ask the daemon start
 * without the hypervisor.
 */
import { Command, CommanderError } from "commander";
import type { RunFlags } from "./run-options.ts";
import { complain, describeFailure, EXIT_FAILED } from "./terminal.ts";
import type { ClientFlags } from "./client/choose-place.ts";
import type { DaemonFlags } from "./daemon-command.ts";
import { addDomains, addPlace } from "./domain-program.ts";
import { addXenstore } from "./xenstore-program.ts";

const VERSION = "0.1.0";

const RUN_EXAMPLES = `
Sizes take K, M, G or KiB, MiB, GiB; a bare number is MiB. Durations take ms, s, m, h; a bare number is seconds.
Standard input, output and error are the guest's; what xl itself says goes to standard error.

Exit code: the guest's own; 134 the domain crashed; 124 the timeout; 125 xl itself failed; 128+n ended by signal n.

Examples:
  xl run hello.wasm
  xl run --memory 64M --dir ./data::/data sqlite.wasm -- /data/notes.db
  xl run --dir /etc::/config:ro --env LANG=C tool.wasm -- --verbose
  xl run --invoke add reactor.wasm -- 2 40`;

const collect = (value: string, before: readonly string[]): readonly string[] => [...before, value];

type SetCode = (code: number) => void;

const addRun = (program: Command, setCode: SetCode): void => {
  program
    .command("run")
    .summary("run a module as a domain, in the foreground")
    .description("Boots a WebAssembly module as a domain and waits until it ends.")
    .argument("<image>", "the module: a .wasm file")
    .argument("[args...]", "arguments of the guest, after --")
    .option("--name <name>", "name of the domain")
    .option("--memory <size>", "memory that the domain may own (default: 256 MiB)")
    .option("--maxmem <size>", "memory up to which it may grow (default: --memory)")
    .option("--vcpus <count>", "virtual CPUs, 1 to 32 (default: 1)")
    .option("--dir <host::guest[:ro]>", "share a directory with the guest; repeatable", collect, [])
    .option("--env <name=value>", "set a variable of the guest's environment; repeatable", collect, [])
    .option("--socket <path>", "answer there like a daemon while it runs (xl list); auto: where xl looks for one")
    .option(
      "--xenstore-socket <path>",
      "serve xenstore there while it runs (xl xenstore); auto: where xl xenstore looks",
    )
    .option("--timeout <duration>", "stop the domain after this time")
    .option("--invoke <export>", "call this export of a reactor with the arguments, print what it returns")
    .option("--request-key <program>", "program that builds the keys that guests ask for and do not have")
    .option("--request-key-timeout <duration>", "how long it may take (default: 1m)")
    .option(
      "--secrets <policy>",
      "strict (default): secret memory or none; degraded: locked memory where the kernel has no other",
    )
    .option("--secret-memory <size>", "secret memory at most, of all domains and keys (default: 64M)")
    .option("--preemptible", "let it be paused while it computes; costs speed")
    .option("--stats", "say what the domain used, on standard error")
    .option("--json", "report the end as one line of JSON, on standard error")
    .addHelpText("after", RUN_EXAMPLES)
    .action(async (image: string, values: string[], flags: RunFlags) =>
      setCode(await (await import("./run-command.ts")).runCommand(image, values, flags)),
    );
};

const addInfo = (program: Command): void => {
  const info = program
    .command("info")
    .summary("what this machine offers, what is degraded, and the remedy")
    .description("Says what this machine offers, what is degraded and what would mend it, and what the daemon has.");
  addPlace(info)
    .option("--json", "as JSON")
    .action(async (flags: ClientFlags) => (await import("./info-command.ts")).infoCommand(flags));
};

const DAEMON_HELP = `
It owns one host and all domains that xl create makes, and ends with them on SIGTERM, SIGINT or SIGHUP. What domains are made
from is kept in the state directory; those with autostart = true start with it. Logs are lines of JSON on standard output.
There is no TCP without TLS and a token: --listen, --tls-certificate, --tls-key and --token-file go together.

Exit code: 0; 125 xl itself failed, or there is a daemon at that socket already.

Examples:
  xl daemon
  xl daemon --memory 8G --state /srv/xenolith --socket /run/xenolith/xl.sock
  xl daemon --listen 0.0.0.0:8443 --tls-certificate cert.pem --tls-key key.pem --token-file token`;

const addDaemon = (program: Command, setCode: SetCode): void => {
  program
    .command("daemon")
    .summary("serve domains to all other commands, in the foreground")
    .description("Runs the daemon that the other commands ask, until a signal ends it.")
    .option("--socket <path>", "where it answers (default: xl.sock in the runtime directory)")
    .option("--state <directory>", "where it keeps what domains are made from")
    .option("--memory <size>", "machine memory for all domains (default: three quarters of what there is)")
    .option("--policy <file>", "rules in JSON that take operations from domains")
    .option("--request-key <program>", "program that builds the keys that guests ask for and do not have")
    .option("--request-key-timeout <duration>", "how long it may take (default: 1m)")
    .option(
      "--secrets <policy>",
      "strict (default): secret memory or none; degraded: locked memory where the kernel has no other",
    )
    .option("--secret-memory <size>", "secret memory at most, of all domains and keys (default: 64M)")
    .option("--xenstore-socket <path>", "where xenstore is served; none: nowhere (default: beside --socket)")
    .option("--listen <address:port>", "serve over TCP too")
    .option("--tls-certificate <file>", "certificate with its chain, in PEM")
    .option("--tls-key <file>", "its private key, in PEM")
    .option("--token-file <file>", "what clients over TCP must send, at least 16 characters")
    .option("--log-level <level>", "debug, info, warn, error or silent (default: info)")
    .addHelpText("after", DAEMON_HELP)
    .action(async (flags: DaemonFlags) => setCode(await (await import("./daemon-command.ts")).daemonCommand(flags)));
};

const addImage = (program: Command): void => {
  const image = program.command("image").summary("look at modules");
  image
    .command("inspect")
    .summary("imports, exports, memory, features, what is rewritten, what stands in the way")
    .argument("<image>", "the module: a .wasm file")
    .option("--json", "as JSON")
    .action(async (path: string, flags: { readonly json?: boolean }) =>
      (await import("./image-command.ts")).imageInspectCommand(path, flags),
    );
};

const buildProgram = (setCode: SetCode): Command => {
  const program = new Command("xl")
    .description("Runs WebAssembly modules as domains of a hypervisor.")
    .version(VERSION)
    .exitOverride()
    .configureHelp({ showGlobalOptions: true })
    .showSuggestionAfterError(true);
  program.commandsGroup("By itself:");
  addRun(program, setCode);
  addDaemon(program, setCode);
  addInfo(program);
  addImage(program);
  addDomains(program, setCode);
  addXenstore(program, setCode);
  program.commandsGroup("Help:");
  return program;
};

/** Runs `xl` with `words` (without node and the script); returns the exit code. Never throws. */
export const main = async (words: readonly string[]): Promise<number> => {
  let code = 0;
  try {
    await buildProgram((next) => {
      code = next;
    }).parseAsync(words, { from: "user" });
    return code;
  } catch (error) {
    if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : EXIT_FAILED;
    complain(describeFailure(error));
    return EXIT_FAILED;
  }
};
