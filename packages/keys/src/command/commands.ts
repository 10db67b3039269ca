import * as adding from "./add-commands.ts";
import type { Run } from "./context.ts";
import * as features from "./feature-commands.ts";
import * as keys from "./key-commands.ts";
import { selfTest } from "./limit-tests.ts";
import * as reading from "./read-commands.ts";
import { session } from "./session-command.ts";
import { show } from "./show-command.ts";
import * as trees from "./tree-commands.ts";

/** The version that every output and exit code agrees with. */
const VERSION = "keyctl from keyutils-1.6.3 (Built 2022-12-18)\n";

const version: Run = ({ terminal }) => {
  terminal.out(VERSION);
  return Promise.resolve(0);
};

const ADD_PKEY = "<key> <pass> <datafile> [k=v]*";
const DH_KDF = "<private> <prime> <base> <len> <hash_name>";

/** Every command, its formats and what runs it, in the order of the usage. */
export const commands: readonly (readonly [name: string, run: Run, ...formats: readonly string[]])[] = [
  ["--version", version, ""],
  ["add", adding.add, "[-x] <type> <desc> <data> <keyring>"],
  ["chgrp", keys.chgrp, "<key> <gid>"],
  ["chown", keys.chown, "<key> <uid>"],
  ["clear", keys.clear, "<keyring>"],
  ["describe", reading.describe, "<keyring>"],
  ["dh_compute", features.dhCompute, "<private> <prime> <base>"],
  ["dh_compute_kdf", features.dhComputeKdf, DH_KDF],
  ["dh_compute_kdf_oi", features.dhComputeKdfOi, `[-x] ${DH_KDF}`],
  ["get_persistent", keys.getPersistent, "<keyring> [<uid>]"],
  ["id", keys.id, "<key>"],
  ["instantiate", adding.instantiate, "[-x] <key> <data> <keyring>"],
  ["invalidate", keys.invalidate, "<key>"],
  ["link", keys.link, "<key> <keyring>"],
  ["list", reading.list, "<keyring>"],
  ["move", keys.move, "[-f] <key> <from_keyring> <to_keyring>"],
  ["negate", adding.negate, "<key> <timeout> <keyring>"],
  ["new_session", keys.newSession, "[<name>]"],
  ["newring", adding.newring, "<name> <keyring>"],
  ["padd", adding.padd, "[-x] <type> <desc> <keyring>"],
  ["pinstantiate", adding.pinstantiate, "[-x] <key> <keyring>"],
  ["pipe", reading.pipe, "<key>"],
  ["pkey_query", features.pkeyQuery, "<key> <pass> [k=v]*"],
  ["pkey_encrypt", features.pkeyOperation, ADD_PKEY],
  ["pkey_decrypt", features.pkeyOperation, ADD_PKEY],
  ["pkey_sign", features.pkeyOperation, ADD_PKEY],
  ["pkey_verify", features.pkeyVerify, "<key> <pass> <datafile> <sigfile> [k=v]*"],
  ["prequest2", adding.prequest2, "<type> <desc> [<dest_keyring>]"],
  ["print", reading.printKey, "<key>"],
  ["pupdate", adding.pupdate, "[-x] <key>"],
  ["purge", trees.purge, "<type>", "[-p] [-i] <type> <desc>", "-s <type> <desc>"],
  ["rdescribe", reading.rdescribe, "<keyring> [sep]"],
  ["read", reading.read, "<key>"],
  ["reap", trees.reap, "[-v]"],
  ["reject", adding.reject, "<key> <timeout> <error> <keyring>"],
  ["request", adding.request, "<type> <desc> [<dest_keyring>]"],
  ["request2", adding.request2, "<type> <desc> <info> [<dest_keyring>]"],
  ["restrict_keyring", keys.restrictKeyring, "<keyring> [<type> [<restriction>]]"],
  ["revoke", keys.revoke, "<key>"],
  ["rlist", reading.rlist, "<keyring>"],
  ["search", keys.search, "<keyring> <type> <desc> [<dest_keyring>]"],
  ["security", keys.security, "<key>"],
  ["session", session, "", "- [<prog> <arg1> <arg2> ...]", "<name> [<prog> <arg1> <arg2> ...]"],
  ["setperm", keys.setperm, "<key> <mask>"],
  ["show", show, "[-x] [<keyring>]"],
  ["supports", features.supports, "[<cap> | --raw]"],
  ["timeout", keys.timeout, "<key> <timeout>"],
  ["unlink", trees.unlink, "<key> [<keyring>]"],
  ["update", adding.update, "[-x] <key> <data>"],
  ["watch", features.watch, "[-f<filters>] <key>"],
  ["watch_add", features.watchChange, "<fd> <key>"],
  ["watch_rm", features.watchChange, "<fd> <key>"],
  [
    "watch_session",
    features.watchSession,
    "[-f<filters>] [-n <name>] <notifylog> <gclog> <fd> <prog> [<arg1> <arg2> ...]",
  ],
  ["watch_sync", features.watchSync, "<fd>"],
  ["--test", selfTest, "..."],
];

/** Commands of our own, which the usage does not show as it is the original's. */
export const additions: readonly (readonly [name: string, run: Run])[] = [
  ["--keys", features.listKeys],
  ["--key-users", features.listUsers],
];

const KEY_IDS = `
Key/keyring ID:
  <nnn>   numeric keyring ID
  @t      thread keyring
  @p      process keyring
  @s      session keyring
  @u      user keyring
  @us     user default session keyring
  @g      group keyring
  @a      assumed request_key authorisation key

<type> can be "user" for a user-defined keyring
If you do this, prefix the description with "<subtype>:"
`;

/** What is printed for a command line with the wrong number of arguments; `--test` has a usage of its own. */
export const usage = (command?: string): string => {
  const lines = commands.flatMap(([name, , ...formats]) => formats.map((format) => `  keyctl ${name} ${format}\n`));
  const shown = command === "--test" ? ["  keyctl --test limits \n", "  keyctl --test limits2 \n"] : lines;
  return `Format:\n${shown.join("")}${KEY_IDS}`;
};
