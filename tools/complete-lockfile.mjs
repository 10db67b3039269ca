// Adds to package-lock.json the optional packages that a dependency names for other platforms and that the lockfile
// lacks. npm leaves them out when the registry mirror in use does not hold them, and `npm ci` then refuses the lockfile.
// Run it after every `npm install` that changes the lockfile. The entries carry no hash: nothing was fetched.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";

const file = path.join(import.meta.dirname, "..", "package-lock.json");
const lockfile = JSON.parse(readFileSync(file, "utf8"));

const systems = ["aix", "android", "darwin", "freebsd", "linux", "netbsd", "openbsd", "openharmony", "sunos", "win32"];
const processors = ["arm64", "arm", "ia32", "loong64", "ppc64", "riscv64", "s390x", "x64"];

/** What the name of a platform's build says about the platform: `binding-linux-arm64-musl`. */
const platformOf = (name) => {
  const words = name.split(/[/-]/);
  const libc = words.includes("musl") ? ["musl"] : words.includes("gnu") ? ["glibc"] : undefined;
  const found = {
    cpu: processors.filter((processor) => words.includes(processor)),
    os: systems.filter((system) => words.includes(system)),
  };
  if (found.cpu.length !== 1 || found.os.length !== 1) throw new Error(`cannot tell the platform of ${name}`);
  return libc === undefined ? found : { ...found, libc };
};

const added = [];
for (const [parent, entry] of Object.entries(lockfile.packages)) {
  for (const [name, version] of Object.entries(entry.optionalDependencies ?? {})) {
    const place = `node_modules/${name}`;
    if (place in lockfile.packages || `${parent}/${place}` in lockfile.packages) continue;
    if (!/^\d+\.\d+\.\d+$/.test(version)) throw new Error(`${name}: ${version} is not an exact version`);
    const entryHere = { ...platformOf(name), ...(entry.dev === true ? { dev: true } : {}), optional: true };
    const inOrder = Object.entries(entryHere).toSorted(([a], [b]) => a.localeCompare(b, "en"));
    added.push([place, { version, ...Object.fromEntries(inOrder) }]);
  }
}

const [root, ...packages] = Object.entries(lockfile.packages);
const sorted = [...packages, ...added].toSorted(([a], [b]) => a.localeCompare(b, "en"));
writeFileSync(
  file,
  `${JSON.stringify({ ...lockfile, packages: Object.fromEntries([root, ...sorted]) }, undefined, 2)}\n`,
);
console.log(`added ${added.length} packages of other platforms`);
