/**
 * Commands that show domains. Every figure is what the hypervisor says at that moment.
 */
import { XenolithError } from "@xenolith/abi/error";
import type { ClientFlags } from "../client/choose-place.ts";
import { connect, type Connection } from "../client/connection.ts";
import { formatClaims, formatList, formatMemory, formatUptimes, formatVcpus } from "../client/format.ts";
import type { DomainView, VcpusView } from "../daemon/api-types.ts";
import { printable } from "../terminal.ts";
import { asking, print, printJson } from "./report.ts";

/** Options of `xl list`. */
export interface ListFlags extends ClientFlags {
  readonly long?: boolean;
  readonly memory?: boolean;
}

/** `xl list`. */
export const listCommand = (words: readonly string[], flags: ListFlags): Promise<number> =>
  asking(async () => {
    const connection = connect(flags);
    const domains = await connection.named(words);
    if (flags.long === true) {
      const byName = new Map((await connection.definitions()).map((each) => [each.name, each.config]));
      printJson(domains.map((domain) => ({ ...domain, config: byName.get(domain.definition ?? "") })));
    } else if (flags.json === true) printJson(domains);
    else print(printable(flags.memory === true ? formatMemory(domains) : formatList(domains)));
  });

/** `xl vcpu-list`. */
export const vcpuListCommand = (words: readonly string[], flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const connection = connect(flags);
    const views =
      words.length > 0
        ? await Promise.all(words.map((word) => connection.vcpus(word)))
        : await vcpusOfAll(connection, await connection.domains());
    if (flags.json === true) printJson(views);
    else print(printable(formatVcpus(views)));
  });

/** Of each domain that is still there. */
const vcpusOfAll = async (connection: Connection, domains: readonly DomainView[]): Promise<readonly VcpusView[]> => {
  const views = await Promise.all(
    domains.map(({ domid }) =>
      connection.vcpus(String(domid)).catch((error: unknown) => {
        if (error instanceof XenolithError && error.code === "DOMAIN_NOT_FOUND") return undefined;
        throw error;
      }),
    ),
  );
  return views.filter((view) => view !== undefined);
};

/** `xl uptime`. */
export const uptimeCommand = (words: readonly string[], flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const domains = await connect(flags).named(words);
    if (flags.json === true)
      printJson(domains.map(({ name, domid, uptimeSeconds }) => ({ name, domid, uptimeSeconds })));
    else print(printable(formatUptimes(domains)));
  });

/** `xl claims`. */
export const claimsCommand = (flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const connection = connect(flags);
    if (flags.json === true) printJson(await connection.claims());
    else print(printable(formatClaims(await connection.domains())));
  });

/** `xl secrets`. */
export const secretsCommand = (flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const secrets = await connect(flags).secrets();
    if (flags.json === true) printJson(secrets);
    else print(printable((await import("../client/format-secrets.ts")).formatSecrets(secrets)));
  });

/** `xl domid`. */
export const domidCommand = (name: string, flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const { domid } = await connect(flags).domain(name);
    if (flags.json === true) printJson({ domid });
    else print(String(domid));
  });

/** `xl domname`. */
export const domnameCommand = (domid: string, flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const { name } = await connect(flags).domain(domid);
    if (flags.json === true) printJson({ name });
    else print(printable(name));
  });

/** `xl dmesg`. */
export const dmesgCommand = (flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const { lines } = await connect(flags).dmesg();
    if (flags.json === true) printJson(lines);
    else
      for (const line of lines)
        print(printable(`[${new Date(line.timeMs).toISOString()}] ${line.level}: ${line.text}`));
  });

/** `xl debug audit`: 1 when something was found. */
export const auditCommand = (flags: ClientFlags): Promise<number> =>
  asking(async () => {
    const { findings } = await connect(flags).audit();
    if (flags.json === true) printJson(findings);
    else print(findings.length === 0 ? "no findings" : printable(findings.join("\n")));
    return findings.length === 0 ? 0 : 1;
  });
