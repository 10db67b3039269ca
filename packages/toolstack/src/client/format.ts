/**
 * What `xl` prints about domains: the columns and letters that users of Xen's xl know. Pure functions of the API's answers.
 */
import type { DefinitionView, DomainFlags, DomainView, VcpusView } from "../daemon/api-types.ts";

const MIB = 2 ** 20;
const KIB = 2 ** 10;

/** `r-----`: running, blocked, paused, shut down, crashed, dying, in this order. */
export const formatState = (state: DomainFlags): string =>
  [
    state.running ? "r" : "-",
    state.blocked ? "b" : "-",
    state.paused ? "p" : "-",
    state.shutdown ? "s" : "-",
    state.crashed ? "c" : "-",
    state.dying ? "d" : "-",
  ].join("");

/** Bytes as whole MiB, rounded down, as xl does. */
const mib = (bytes: number): string => String(Math.floor(bytes / MIB));
const kib = (bytes: number): string => String(Math.floor(bytes / KIB));

/** What a domain owns and what is set aside for it: the column Mem of xl. */
const memBytes = ({ memory }: DomainView): number => memory.currentBytes + memory.claimedBytes;

const LIST_HEADER = `${"Name".padEnd(40)}    ID   Mem VCPUs     State     Time(s)`;

const listRow = (domain: DomainView): string =>
  [
    domain.name.padEnd(40),
    String(domain.domid).padStart(5),
    mib(memBytes(domain)).padStart(5),
    `${String(domain.vcpus).padStart(5)}    `,
    formatState(domain.state),
    domain.cpuSeconds.toFixed(1).padStart(10),
  ].join(" ");

/** `xl list`. */
export const formatList = (domains: readonly DomainView[]): string => [LIST_HEADER, ...domains.map(listRow)].join("\n");

/** `xl claims`. */
export const formatClaims = (domains: readonly DomainView[]): string =>
  [
    `${LIST_HEADER}  Claimed`,
    ...domains.map((domain) => `${listRow(domain)} ${mib(domain.memory.claimedBytes).padStart(8)}`),
  ].join("\n");

/** Lines of a table; columns whose name begins with `<` stand left, the others right. */
export const formatColumns = (names: readonly string[], rows: readonly (readonly string[])[]): string => {
  const heads = names.map((name) => name.replace(/^</, ""));
  const widths = heads.map((head, column) => Math.max(head.length, ...rows.map((row) => row[column]!.length)));
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) =>
        names[column]!.startsWith("<") ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!),
      )
      .join("  ")
      .trimEnd();
  return [heads, ...rows].map(line).join("\n");
};

const MEMORY_COLUMNS = [
  "<Name",
  "ID",
  "Mem(k)",
  "Target(k)",
  "Min(k)",
  "Max(k)",
  "Limit(k)",
  "Peak(k)",
  "Weight",
  "<Driver",
  "<Balloon",
];

/** `xl list -m`: sizes are KiB; Max is how far the target may be raised, Limit is the hypervisor's max_pages. */
export const formatMemory = (domains: readonly DomainView[]): string =>
  formatColumns(
    MEMORY_COLUMNS,
    domains.map(({ name, domid, memory }) => {
      const { balloon } = memory;
      const sizes = [balloon?.targetBytes, balloon?.minBytes, balloon?.maxBytes, memory.maxBytes, memory.peakBytes];
      return [
        name,
        String(domid),
        kib(memory.currentBytes),
        ...sizes.map((bytes) => (bytes === undefined ? "-" : kib(bytes))),
        balloon === undefined ? "-" : String(balloon.weight),
        balloon?.driver ?? "-",
        balloon === undefined ? "-" : `${balloon.state}${balloon.isPinned ? ", by hand" : ""}`,
      ];
    }),
  );

/** `xl vcpu-list`. The kernel places threads, so there is neither a CPU number nor an affinity of our own. */
export const formatVcpus = (domains: readonly VcpusView[]): string => {
  const header = `${"Name".padEnd(32)}    ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)`;
  const rows = domains.flatMap(({ name, domid, vcpus }) =>
    vcpus.map(({ vcpu, online, running, blocked, cpuSeconds }) =>
      [
        name.padEnd(32),
        String(domid).padStart(5),
        String(vcpu).padStart(5),
        "    -",
        online ? `  ${running ? "r" : "-"}${blocked ? "b" : "-"}-` : "  --p",
        cpuSeconds.toFixed(1).padStart(9),
        "all / all",
      ].join(" "),
    ),
  );
  return [header, ...rows].join("\n");
};

/** `3 days,  4:05:06`. */
export const formatUptime = (seconds: number): string => {
  const whole = Math.max(0, Math.floor(seconds));
  const days = Math.floor(whole / 86_400);
  const [hours, minutes, rest] = [Math.floor(whole / 3600) % 24, Math.floor(whole / 60) % 60, whole % 60];
  const time = `${hours}:${String(minutes).padStart(2, "0")}:${String(rest).padStart(2, "0")}`;
  return days === 0 ? time : `${days} ${days === 1 ? "day" : "days"}, ${time.padStart(8)}`;
};

/** `xl uptime`. */
export const formatUptimes = (domains: readonly DomainView[]): string => {
  const header = `${"Name".padEnd(33)}   ID Uptime`;
  const rows = domains.map(
    ({ name, domid, uptimeSeconds }) =>
      `${name.padEnd(33)} ${String(domid).padStart(4)} ${formatUptime(uptimeSeconds)}`,
  );
  return [header, ...rows].join("\n");
};

/** `xl config-list`. */
export const formatDefinitions = (definitions: readonly DefinitionView[]): string =>
  formatColumns(
    ["<Name", "ID", "<Autostart", "<Kernel"],
    definitions.map(({ name, domid, autostart, config }) => [
      name,
      domid === undefined ? "-" : String(domid),
      autostart ? "yes" : "no",
      config.kernel,
    ]),
  );

/** One look of `xl top`. `before` is the look before this one, `seconds` ago. */
export interface TopLook {
  readonly domains: readonly DomainView[];
  readonly memoryBytes: number;
  readonly before?: readonly DomainView[];
  readonly seconds: number;
}

const TOP_COLUMNS = [
  "NAME",
  "<STATE",
  "CPU(sec)",
  "CPU(%)",
  "MEM(k)",
  "MEM(%)",
  "MAXMEM(k)",
  "MAXMEM(%)",
  "VCPUS",
  "HCALLS/s",
];

/** The table of `xl top`, busiest first: xentop's columns, and hypercalls a second. */
export const formatTop = ({ domains, memoryBytes, before = [], seconds }: TopLook): string => {
  const byGeneration = new Map(before.map((domain) => [domain.generation, domain]));
  const rate = (domain: DomainView, figure: (domain: DomainView) => number): number | undefined => {
    const earlier = byGeneration.get(domain.generation);
    return earlier === undefined || seconds <= 0 ? undefined : (figure(domain) - figure(earlier)) / seconds;
  };
  const percent = (bytes: number): string => ((100 * bytes) / memoryBytes).toFixed(1);
  const rows = domains
    .map((domain) => ({ domain, cpu: rate(domain, ({ cpuSeconds }) => cpuSeconds) }))
    .toSorted((a, b) => (b.cpu ?? 0) - (a.cpu ?? 0) || a.domain.domid - b.domain.domid)
    .map(({ domain, cpu }) => [
      domain.name,
      formatState(domain.state),
      domain.cpuSeconds.toFixed(0),
      cpu === undefined ? "-" : (cpu * 100).toFixed(1),
      kib(domain.memory.currentBytes),
      percent(domain.memory.currentBytes),
      kib(domain.memory.maxBytes),
      percent(domain.memory.maxBytes),
      String(domain.vcpus),
      rate(domain, ({ hypercalls }) => hypercalls)?.toFixed(0) ?? "-",
    ]);
  return formatColumns(TOP_COLUMNS, rows);
};
