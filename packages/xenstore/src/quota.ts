/**
 * What one unprivileged domain may use. Source: xenstore.txt and xenstored's defaults.
 *
 *     nodes              owned by the domain
 *     watches            set
 *     outstanding        requests whose reply it has not taken; more are not read
 *     transactions       open
 *     transaction-nodes  nodes that one transaction may touch
 *     node-size          bytes of a value
 *     node-permissions   entries of a list
 *     path-max           characters of a path, without the home of a domain at its start
 *     memory             bytes of nodes, watches and transactions that it makes the store keep
 *     memory-soft        the same, where the operator is told
 */
export const defaultQuota = {
  nodes: 1000,
  watches: 128,
  outstanding: 20,
  transactions: 10,
  "transaction-nodes": 1024,
  "node-size": 2048,
  "node-permissions": 5,
  "path-max": 2048,
  memory: 2_621_440,
  "memory-soft": 2_097_152,
} as const;

/** The name of a limit. */
export type QuotaName = keyof typeof defaultQuota;
/** All limits of one domain. */
export type Quota = Readonly<Record<QuotaName, number>>;

/** The names of all limits, in the order in which they are shown. */
export const quotaNames: readonly QuotaName[] = [
  "nodes",
  "watches",
  "outstanding",
  "transactions",
  "transaction-nodes",
  "node-size",
  "node-permissions",
  "path-max",
  "memory",
  "memory-soft",
];

export const isQuotaName = (name: string): name is QuotaName => Object.hasOwn(defaultQuota, name);
