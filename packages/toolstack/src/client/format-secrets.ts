/** What `xl secrets` prints. A pure function of the API's answer. */
import type { DirectMapView, SecretPoolView, SecretsView } from "../daemon/api-types.ts";
import { formatColumns } from "./format.ts";

const KIB = 2 ** 10;
const MIB = 2 ** 20;

const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`;

/** Refusals as `SECRET_QUOTA 3, SECRET_MEMLOCK 1`. */
const refusalsText = ({ refusals }: SecretPoolView): string =>
  refusals.length === 0 ? "none" : refusals.map(({ code, count }) => `${code} ${count}`).join(", ");

const poolRows = (pool: SecretPoolView): readonly string[][] => [
  [
    "memory",
    pool.hidden ? "hidden: the kernel itself cannot read it" : "DEGRADED: locked in RAM, but the kernel reads it",
  ],
  ["locked", `${mib(pool.lockedBytes)} of ${mib(pool.ceilingBytes)} (most so far ${mib(pool.lockedBytesHigh)})`],
  ["chunks", `${pool.chunks} of ${mib(pool.chunkBytes)}, ${mib(pool.freeBytes)} free`],
  ["regions", `${mib(pool.regionBytes)}, mapped elsewhere too ${mib(pool.mappedBytes)}`],
  ["slots", `${pool.slots}, of them degraded ${pool.degradedSlots}`],
  ["growths", `${pool.growths}, shrinks ${pool.shrinks}, overruns ${pool.overruns}`],
  ["refusals", refusalsText(pool)],
];

const mapRows = ({
  smallBytes,
  largeBytes,
  hugeBytes,
  largeSplits,
  hugeSplits,
}: DirectMapView): readonly string[][] => [
  ["direct map", `4k ${mib(smallBytes)}, 2M ${mib(largeBytes)}, 1G ${mib(hugeBytes)}`],
  ["splits", `2M ${largeSplits ?? "-"}, 1G ${hugeSplits ?? "-"}`],
];

const ownerTable = ({ owners }: SecretPoolView): string =>
  formatColumns(
    ["<Owner", "Mem(k)", "Slots", "Chunks", "Peak(k)", "Refused"],
    owners.map(({ path, bytes, slots, chunks, bytesHigh, refusals }) => [
      path,
      (bytes / KIB).toFixed(1),
      String(slots),
      String(chunks),
      (bytesHigh / KIB).toFixed(1),
      String(refusals),
    ]),
  );

/** `xl secrets`. */
export const formatSecrets = ({ pool, directMap }: SecretsView): string => {
  const rows = [
    ...(pool === undefined ? [["memory", "none: nobody has wanted secret memory yet"]] : poolRows(pool)),
    ...(directMap === undefined ? [] : mapRows(directMap)),
  ];
  const facts = rows.map(([name = "", text = ""]) => `${name.padEnd(12)}${text}`).join("\n");
  return pool === undefined || pool.owners.length === 0 ? facts : `${facts}\n\n${ownerTable(pool)}`;
};
