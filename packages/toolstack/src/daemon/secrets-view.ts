/**
 * What the API shows of secret memory: figures, and names of owners. Nobody who asks opens the pool.
 */
import type { Host } from "@xenolith/host";
import { directMap } from "@xenolith/sys";
import type { SecretPoolView, SecretsView } from "./api-types.ts";

/** The pool of a host, and the kernel's map of memory, of which secret memory is taken out. */
export const secretsView = (host: Host): SecretsView => {
  const pool = poolView(host);
  const map = directMap();
  return { ...(pool === undefined ? {} : { pool }), ...(map === undefined ? {} : { directMap: map }) };
};

const poolView = (host: Host): SecretPoolView | undefined => {
  const figures = host.openedSecrets?.statistics();
  if (figures === undefined) return undefined;
  const { refusals, lastGrowthMs: _, ...rest } = figures;
  return { ...rest, refusals: Object.entries(refusals).map(([code, count]) => ({ code, count })) };
};
