// Deletes everything that the build writes: each project's dist folder.
import { readdirSync, rmSync } from "node:fs";
import path from "node:path";

const root = path.join(import.meta.dirname, "..");
const packages = readdirSync(path.join(root, "packages")).map((name) => path.join("packages", name));
for (const project of [...packages, "tools", "tests", "bench"]) {
  rmSync(path.join(root, project, "dist"), { recursive: true, force: true });
}
