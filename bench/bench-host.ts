/** Hosts and domains for benches: a cache directory of their own, a reactor ready to be called. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Domain, type DomainOptions, Host, type HostOptions } from "@xenolith/host";

/** Opens a host, lets `work` use it, closes it. */
export const withHost = async <T>(options: HostOptions, work: (host: Host) => Promise<T>): Promise<T> => {
  const cacheDirectory = mkdtempSync(join(tmpdir(), "xenolith-bench-"));
  try {
    await using host = await Host.open({ cacheDirectory, ...options });
    await host.warm();
    return await work(host);
  } finally {
    rmSync(cacheDirectory, { recursive: true, force: true });
  }
};

/** Creates and starts a domain. */
export const startDomain = async (host: Host, options: DomainOptions): Promise<Domain> => {
  const domain = await host.createDomain(options);
  await domain.start();
  return domain;
};

/** The result of a call that returns one number. */
export const numberOf = (value: unknown): number => {
  if (typeof value === "number" || typeof value === "bigint") return Number(value);
  throw new TypeError(`the guest returned ${String(value)}, a number was expected`);
};
