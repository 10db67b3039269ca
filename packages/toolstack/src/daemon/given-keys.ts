/** Keys that a domain has before it starts. */
import { statSync } from "node:fs";
import { XenolithError } from "@xenolith/abi";
import type { Domain, Host } from "@xenolith/host";
import { readSecretFile } from "@xenolith/secrets";

/**
 * Gives a domain the bytes of these files, by description. They pass through secret memory only.
 *
 * @throws XenolithError `FILE_NOT_FOUND`, `KEY_REFUSED`: a file is empty or too large for a key; as `Host.keys`.
 */
export const giveKeys = async (host: Host, domain: Domain, files: Readonly<Record<string, string>>): Promise<void> => {
  const entries = Object.entries(files);
  if (entries.length === 0) return;
  const pool = await host.secrets();
  using owner = pool.owner(`files-for:${domain.domid}.${domain.generation}`);
  for (const [description, file] of entries) {
    // What is no file could have the daemon wait for ever.
    if (statSync(file, { throwIfNoEntry: false })?.isFile() !== true)
      throw new XenolithError("FILE_NOT_FOUND", `the key "${description}": ${file} is no file`);
    await domain.keys.give({ description, payload: readSecretFile(owner, file) });
  }
};
