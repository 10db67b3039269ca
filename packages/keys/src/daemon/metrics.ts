import { type OperationName, operationNames } from "../client/protocol.ts";
import { errnoName } from "@xenolith/abi/errno";

/** Numbers that the daemon counts while it serves. */
export class DaemonMetrics {
  receivedBytes = 0;
  sentBytes = 0;
  connections = 0;
  connectionsTotal = 0;
  refusedConnections = 0;
  brokenConnections = 0;
  waiting = 0;
  upcalls = 0;
  upcallsTotal = 0;
  readonly #operations = new Map<OperationName, number>();
  readonly #errors = new Map<number, number>();

  /** One operation is carried out. */
  count(name: OperationName): void {
    this.#operations.set(name, (this.#operations.get(name) ?? 0) + 1);
  }

  /** One operation was refused with this negated error number. */
  countError(result: number): void {
    this.#errors.set(result, (this.#errors.get(result) ?? 0) + 1);
  }

  /** Everything in the text format of Prometheus; `gauges` are numbers that others keep. */
  render(gauges: Readonly<Record<string, number>>): string {
    const operations = operationNames
      .filter((name) => name !== undefined)
      .map((name): Sample => [`{operation="${name}"}`, this.#operations.get(name) ?? 0]);
    const errors = [...this.#errors].map(([result, count]): Sample => {
      return [`{error="${errnoName(result) ?? -result}"}`, count];
    });
    return [
      metric("xkeyd_operations_total", "counter", "Operations that clients asked for.", operations),
      metric("xkeyd_errors_total", "counter", "Operations that were refused, by error.", errors),
      metric("xkeyd_received_bytes_total", "counter", "Bytes that clients sent.", [["", this.receivedBytes]]),
      metric("xkeyd_sent_bytes_total", "counter", "Bytes sent to clients.", [["", this.sentBytes]]),
      metric("xkeyd_connections", "gauge", "Connections that are open.", [["", this.connections]]),
      metric("xkeyd_connections_total", "counter", "Connections that were accepted.", [["", this.connectionsTotal]]),
      metric("xkeyd_connections_refused_total", "counter", "Connections turned away.", [["", this.refusedConnections]]),
      metric("xkeyd_connections_broken_total", "counter", "Clients that broke the protocol.", [
        ["", this.brokenConnections],
      ]),
      metric("xkeyd_waiting_operations", "gauge", "Operations that wait for a key.", [["", this.waiting]]),
      metric("xkeyd_upcalls", "gauge", "Helpers that run.", [["", this.upcalls]]),
      metric("xkeyd_upcalls_total", "counter", "Helpers that were started.", [["", this.upcallsTotal]]),
      ...Object.entries(gauges).map(([name, value]) => metric(`xkeyd_${name}`, "gauge", words(name), [["", value]])),
    ].join("");
  }
}

type Sample = readonly [labels: string, value: number];

const words = (name: string): string => `Now: ${name.replaceAll("_", " ")}.`;

const metric = (name: string, kind: "counter" | "gauge", help: string, samples: readonly Sample[]): string => {
  const lines = samples.map(([labels, value]) => `${name}${labels} ${value}\n`);
  return `# HELP ${name} ${help}\n# TYPE ${name} ${kind}\n${lines.join("")}`;
};
