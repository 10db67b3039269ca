/**
 * The words of `xl xenstore`.
 */
import type { Command } from "commander";
import { defaultXenstoreSocket } from "./runtime-directory.ts";
import type { ListingFlags, ReadFlags, WatchFlags, XenstoreFlags } from "./xenstore-command.ts";

const load = (): Promise<typeof import("./xenstore-command.ts")> => import("./xenstore-command.ts");

const HELP = `
The store is a tree of short values that domains and programs share; each domain has its home in /local/domain/<domid>.
It is served at ${defaultXenstoreSocket()} unless --socket names another path.
A path without a slash in front begins in /local/domain/0.

Exit code: 0; 1 the store refused, or a node does not exist; 125 xl itself failed.

Examples:
  xl run --xenstore-socket auto guest.wasm &
  xl xenstore ls -p /local/domain
  xl xenstore write /local/domain/1/control/shutdown poweroff
  xl xenstore chmod /local/domain/1/data n1 r2
  xl xenstore watch @releaseDomain`;

type SetCode = (code: number) => void;

const addCommand = (parent: Command, name: string, summary: string): Command =>
  parent
    .command(name)
    .summary(summary)
    .description(`${summary[0]!.toUpperCase()}${summary.slice(1)}.`)
    .option("--socket <path>", "where the store is served")
    .option("--json", "as JSON");

const addReaders = (xenstore: Command, setCode: SetCode): void => {
  addCommand(xenstore, "ls", "print a node's descendants with their values")
    .argument("[path]", "where to begin", "/")
    .option("-f, --full", "whole paths instead of indentation")
    .option("-p, --permissions", "with permissions")
    .action(async (path: string, flags: ListingFlags) => setCode(await (await load()).xenstoreLs(path, flags)));
  addCommand(xenstore, "list", "print the names of a node's children")
    .argument("<paths...>")
    .action(async (paths: string[], flags: XenstoreFlags) => setCode(await (await load()).xenstoreList(paths, flags)));
  addCommand(xenstore, "read", "print the values of nodes")
    .argument("<paths...>")
    .option("--raw", "the bytes as they are, with nothing added")
    .action(async (paths: string[], flags: ReadFlags) => setCode(await (await load()).xenstoreRead(paths, flags)));
  addCommand(xenstore, "exists", "tell by the exit code whether all nodes exist")
    .argument("<paths...>")
    .action(async (paths: string[], flags: XenstoreFlags) =>
      setCode(await (await load()).xenstoreExists(paths, flags)),
    );
  addCommand(
    xenstore,
    "watch",
    "print the path of every change at or below nodes, or of @introduceDomain, @releaseDomain",
  )
    .argument("<paths...>")
    .option("-n, --count <count>", "end after so many events; the first of each path comes at once")
    .action(async (paths: string[], flags: WatchFlags) => setCode(await (await load()).xenstoreWatch(paths, flags)));
};

const addWriters = (xenstore: Command, setCode: SetCode): void => {
  addCommand(xenstore, "write", "set the values of nodes, all or none; makes what is missing above them")
    .argument("<words...>", "path and value in turn")
    .action(async (words: string[], flags: XenstoreFlags) => setCode(await (await load()).xenstoreWrite(words, flags)));
  addCommand(xenstore, "rm", "remove nodes and all below them, all or none")
    .argument("<paths...>")
    .action(async (paths: string[], flags: XenstoreFlags) => setCode(await (await load()).xenstoreRm(paths, flags)));
  addCommand(xenstore, "chmod", "set who may use a node")
    .argument("<path>")
    .argument("<modes...>", "owner with what all others may do, then others: n0 r5 b7 (none, read, write, both)")
    .action(async (path: string, modes: string[], flags: XenstoreFlags) =>
      setCode(await (await load()).xenstoreChmod(path, modes, flags)),
    );
};

/** Adds `xl xenstore` and what belongs to it. */
export const addXenstore = (program: Command, setCode: SetCode): void => {
  const xenstore = program
    .command("xenstore")
    .summary("look at and change what domains tell each other")
    .addHelpText("after", HELP);
  addReaders(xenstore, setCode);
  addWriters(xenstore, setCode);
};
