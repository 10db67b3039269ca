import type { Connection } from "./connection.ts";
import type { DomainRecord } from "./domain-table.ts";
import { nodeBytes } from "./edit.ts";
import { subtree } from "./node.ts";
import type { Store } from "./store.ts";

interface Count {
  nodes: number;
  nodeBytes: number;
  watches: number;
  transactions: number;
  transactionBytes: number;
}

const counts = (): Count => ({ nodes: 0, nodeBytes: 0, watches: 0, transactions: 0, transactionBytes: 0 });

/** Recounts what each domain uses and compares it with the counters; one sentence for each that does not agree. */
export const audit = (store: Store, connections: Iterable<Connection>): string[] => {
  const found = new Map<DomainRecord, Count>();
  const of = (record: DomainRecord): Count => {
    const count = found.get(record) ?? counts();
    found.set(record, count);
    return count;
  };
  for (const [path, node] of subtree(store.root, "/")) {
    const owner = store.domains.live(node.permissions[0]);
    if (owner === undefined || owner.privileged) continue;
    of(owner).nodes += 1;
    of(owner).nodeBytes += nodeBytes(path, node);
  }
  let watches = 0;
  for (const { caller, watches: own, transactions } of connections) {
    watches += own.size;
    of(caller).watches += own.size;
    of(caller).transactions += transactions.size;
    for (const transaction of transactions.values()) of(caller).transactionBytes += transaction.bytes;
  }
  const complaints: string[] = [];
  for (const record of store.domains) compare(record, of(record), complaints);
  const indexed = store.watches.count + store.specialWatches.count;
  if (indexed !== watches) complaints.push(`watches: ${indexed} indexed, ${watches} set`);
  return complaints;
};

const compare = (record: DomainRecord, count: Count, complaints: string[]): void => {
  const check = (what: string, counted: number, kept: number): void => {
    if (counted !== kept) complaints.push(`domain ${record.domid}: ${what} ${kept} kept, ${counted} counted`);
  };
  check("nodes", count.nodes, record.nodes.size);
  check("node bytes", count.nodeBytes, record.nodeBytes);
  check("watches", count.watches, record.watchCount);
  check("transactions", count.transactions, record.transactionCount);
  check("transaction bytes", count.transactionBytes, record.transactionBytes);
};
