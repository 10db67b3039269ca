/**
 * The words of the commands that ask the daemon. Their code is loaded when they are called.
 */
import type { Command } from "commander";
import type { ClientFlags } from "./client/choose-place.ts";
import type { ConsoleFlags } from "./commands/console.ts";
import type { CreateFlags } from "./commands/create.ts";
import type { EndFlags } from "./commands/lifecycle.ts";
import type { ListFlags } from "./commands/list.ts";
import type { TopFlags } from "./commands/top.ts";

type SetCode = (code: number) => void;

/** How every command that asks the daemon ends. */
const EXIT_CODES = `
Exit code: 0; 1 the daemon refused; 3 no daemon answers; 4 there is no such domain; 125 xl itself failed.`;

const DOMAIN = "the domain: its name or its domid";

/** What a command's help ends with. */
const teach = (command: Command, examples: string, text = ""): Command =>
  command.addHelpText("after", `${text === "" ? "" : `\n${text.trim()}\n`}${EXIT_CODES}\n\nExamples:\n${examples}`);

/** The options that say which daemon is meant. */
export const addPlace = (command: Command): Command =>
  command
    .option("--socket <path>", "where the daemon answers")
    .option("--connect <url>", "where it answers over TCP with TLS: https://HOST:PORT")
    .option("--token-file <file>", "the token that it wants there")
    .option("--ca-file <file>", "certificates to trust there, in PEM (default: those that Node trusts)");

const addCommand = (program: Command, name: string, summary: string): Command =>
  addPlace(
    program
      .command(name)
      .summary(summary)
      .description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`),
  ).option("--json", "as JSON");

const CREATE_HELP = `
The file is TOML with xl.cfg's keys (docs/configuration.md has all). Words key=value stand in place of what it says, or alone.
Everything that is wrong is listed with its line, and nothing is created then.`;

const SAVED_HELP = `
The daemon keeps the configuration of each domain, to restart it. It forgets it when the domain is destroyed, unless it has
autostart = true: then it starts the domain again when it starts itself.`;

const addCreate = (program: Command, setCode: SetCode): void => {
  const create = addCommand(program, "create", "make a domain from a configuration and let it run")
    .argument("[words...]", "the configuration file, then key=value words")
    .option("-c, --console", "follow its console")
    .option("-n, --dryrun", "only check, and print what the configuration comes to")
    .option("-p, --paused", "do not let it run yet; xl unpause does")
    .option("-q, --quiet", "say nothing when it went well")
    .option("-s, --saved <name>", "from the configuration that the daemon has of this name")
    .action(async (words: string[], flags: CreateFlags) =>
      setCode(await (await import("./commands/create.ts")).createCommand(words, flags)),
    );
  teach(
    create,
    `  xl create notes.toml
  xl create -c notes.toml memory=128 environment.LANG=de
  xl create name=notes kernel=sqlite.wasm memory=64
  xl create --dryrun notes.toml
  xl create --saved notes`,
    CREATE_HELP,
  );
  const update = addCommand(program, "config-update", "change what a domain is made from when it starts again")
    .argument("<domain>", DOMAIN)
    .argument("[words...]", "a configuration file in place of all, or key=value words in place of their keys")
    .action(async (domain: string, words: string[], flags: ClientFlags) =>
      setCode(await (await import("./commands/create.ts")).configUpdateCommand(domain, words, flags)),
    );
  teach(update, "  xl config-update notes memory=128 autostart=true\n  xl config-update notes notes.toml");
  const list = addCommand(program, "config-list", "show what the daemon can make domains from").action(
    async (flags: ClientFlags) => setCode(await (await import("./commands/create.ts")).configListCommand(flags)),
  );
  teach(list, "  xl config-list", SAVED_HELP);
  const remove = addCommand(program, "config-remove", "forget what domains are made from; those that run go on")
    .argument("<names...>", "names of configurations")
    .action(async (names: string[], flags: ClientFlags) =>
      setCode(await (await import("./commands/create.ts")).configRemoveCommand(names, flags)),
    );
  teach(remove, "  xl config-remove notes", SAVED_HELP);
};

const addListing = (program: Command, setCode: SetCode): void => {
  const load = (): Promise<typeof import("./commands/list.ts")> => import("./commands/list.ts");
  const list = addCommand(program, "list", "show domains")
    .argument("[domains...]", "names or domids; all without any")
    .option("-l, --long", "everything about them with their configurations, as JSON")
    .option("-m, --memory", "targets, limits and balloon drivers; sizes in KiB")
    .action(async (words: string[], flags: ListFlags) => setCode(await (await load()).listCommand(words, flags)));
  teach(
    list,
    "  xl list\n  xl list -m notes\n  xl list --json | jq '.[].name'",
    `Mem is what a domain owns and what is set aside for it, in MiB. State: r runs now, b waits for an event, p paused,
s ended, c crashed, d being destroyed. Time is processor time. All figures are the hypervisor's at this moment.`,
  );
  const vcpus = addCommand(program, "vcpu-list", "show virtual CPUs")
    .argument("[domains...]", "names or domids; all without any")
    .action(async (words: string[], flags: ClientFlags) => setCode(await (await load()).vcpuListCommand(words, flags)));
  teach(vcpus, "  xl vcpu-list\n  xl vcpu-list notes");
  const uptime = addCommand(program, "uptime", "show how long domains have been there")
    .argument("[domains...]", "names or domids; all without any")
    .action(async (words: string[], flags: ClientFlags) => setCode(await (await load()).uptimeCommand(words, flags)));
  teach(uptime, "  xl uptime\n  xl uptime notes");
  const claims = addCommand(program, "claims", "show memory that is set aside for domains").action(
    async (flags: ClientFlags) => setCode(await (await load()).claimsCommand(flags)),
  );
  teach(claims, "  xl claims");
  const secrets = addCommand(program, "secrets", "show secret memory and its owners").action(
    async (flags: ClientFlags) => setCode(await (await load()).secretsCommand(flags)),
  );
  teach(
    secrets,
    "  xl secrets\n  xl secrets --json | jq '.pool.owners'",
    `Owners are domains (domain:5), keys (keys:domain:5.17 with the serial of the domain's creation, keys:uid:0) and parts of the
program. Splits are of the kernel's own large pages, since the machine started: a pool that keeps its chunks splits once.`,
  );
  const domid = addCommand(program, "domid", "print the domid of a name")
    .argument("<name>", "name of the domain")
    .action(async (name: string, flags: ClientFlags) => setCode(await (await load()).domidCommand(name, flags)));
  teach(domid, "  xl domid notes");
  const domname = addCommand(program, "domname", "print the name of a domid")
    .argument("<domid>", "number of the domain")
    .action(async (number: string, flags: ClientFlags) => setCode(await (await load()).domnameCommand(number, flags)));
  teach(domname, "  xl domname 3");
};

const addEnding = (program: Command, setCode: SetCode): void => {
  const load = (): Promise<typeof import("./commands/lifecycle.ts")> => import("./commands/lifecycle.ts");
  const destroy = addCommand(program, "destroy", "end domains at once, whatever they do")
    .argument("<domains...>", "names or domids")
    .action(async (words: string[], flags: ClientFlags) => setCode(await (await load()).destroyCommand(words, flags)));
  teach(destroy, "  xl destroy notes");
  for (const how of ["shutdown", "reboot"] as const) {
    const end = addCommand(program, how, `ask guests to ${how === "shutdown" ? "end" : "start again"}`)
      .argument("[domains...]", "names or domids")
      .option("-a, --all", "all domains but dom0")
      .option("-F, --force", "stop those that do not listen")
      .option("-w, --wait", "until they have ended")
      .action(async (words: string[], flags: EndFlags) => setCode(await (await load()).endCommand(words, how, flags)));
    teach(
      end,
      `  xl ${how} notes\n  xl ${how} --wait --all`,
      `A guest is asked through xenstore (control/shutdown). What follows when it has ended, its configuration says: on_${how === "shutdown" ? "poweroff" : "reboot"}.`,
    );
  }
  for (const action of ["pause", "unpause"] as const) {
    const act = addCommand(program, action, `${action === "pause" ? "stop" : "go on with"} the virtual CPUs of domains`)
      .argument("<domains...>", "names or domids")
      .action(async (words: string[], flags: ClientFlags) =>
        setCode(await (await load()).actCommand(words, action, flags)),
      );
    teach(act, `  xl ${action} notes`);
  }
  const rename = addCommand(program, "rename", "give a domain another name")
    .argument("<domain>", DOMAIN)
    .argument("<name>", "letters, digits and _ . + -; not digits alone")
    .action(async (word: string, name: string, flags: ClientFlags) =>
      setCode(await (await load()).renameCommand(word, name, flags)),
    );
  teach(rename, "  xl rename notes notes-old");
};

const SIZES = "Sizes take K, M, G or KiB, MiB, GiB; a bare number is MiB.";

const addMemory = (program: Command, setCode: SetCode): void => {
  const load = (): Promise<typeof import("./commands/memory.ts")> => import("./commands/memory.ts");
  const set = addCommand(program, "mem-set", "set the memory that a domain is to have")
    .argument("<domain>", DOMAIN)
    .argument("<size>", "at most the domain's maxmem; auto: as the memory manager decides")
    // So that a negative size is refused as a size.
    .allowUnknownOption()
    .action(async (word: string, size: string, flags: ClientFlags) =>
      setCode(await (await load()).memSetCommand(word, size, flags)),
    );
  teach(
    set,
    "  xl mem-set notes 64\n  xl mem-set notes 1.5G\n  xl mem-set notes auto",
    `${SIZES} The guest's balloon driver gives memory back or takes it, which may take a while: xl list -m shows how far it is.`,
  );
  const max = addCommand(program, "mem-max", "set the memory that a domain may own at most")
    .argument("<domain>", DOMAIN)
    .argument("<size>", "not below its target")
    .allowUnknownOption()
    .action(async (word: string, size: string, flags: ClientFlags) =>
      setCode(await (await load()).memMaxCommand(word, size, flags)),
    );
  teach(max, "  xl mem-max notes 256M", SIZES);
};

const addLooking = (program: Command, setCode: SetCode): void => {
  const console_ = addCommand(program, "console", "follow a domain's console, and type to it")
    .argument("<domain>", DOMAIN)
    .option("--raw", "every key and every character as it is; only for guests that you trust")
    .action(async (word: string, flags: ConsoleFlags) =>
      setCode(await (await import("./commands/console.ts")).consoleCommand(word, flags)),
    );
  teach(
    console_,
    "  xl console notes\n  echo '.quit' | xl console notes",
    "Ctrl-C leaves and the guest goes on; with --raw it is Ctrl-].",
  );
  const top = addCommand(program, "top", "show what domains use, busiest first, again and again")
    .option("-b, --batch", "one table after the other, also on a terminal")
    .option("-d, --delay <duration>", "between two looks (default: 3 s)")
    .option("-i, --iterations <count>", "end after so many looks")
    .action(async (flags: TopFlags) => setCode(await (await import("./commands/top.ts")).topCommand(flags)));
  teach(top, "  xl top\n  xl top -b -i 2 -d 1");
  const dmesg = addCommand(program, "dmesg", "print the latest messages of the hypervisor and the daemon").action(
    async (flags: ClientFlags) => setCode(await (await import("./commands/list.ts")).dmesgCommand(flags)),
  );
  teach(dmesg, "  xl dmesg");
  const debug = program.command("debug").summary("look at the hypervisor itself");
  const audit = addCommand(debug, "audit", "recompute the hypervisor's state from scratch and compare").action(
    async (flags: ClientFlags) => setCode(await (await import("./commands/list.ts")).auditCommand(flags)),
  );
  teach(audit, "  xl debug audit", "Findings are bugs of Xenolith: please report them. The exit code is 1 then.");
};

/** Adds the commands that ask the daemon. */
export const addDomains = (program: Command, setCode: SetCode): void => {
  program.commandsGroup("Domains of the daemon:");
  addCreate(program, setCode);
  addListing(program, setCode);
  addEnding(program, setCode);
  addMemory(program, setCode);
  addLooking(program, setCode);
};
