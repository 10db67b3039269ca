import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { configSchema } from "@xenolith/toolstack";
import { abiPageText } from "./abi-page.ts";
import { readSource, repositoryRoot } from "./abi-source.ts";
import { headerText, typesHeaderText } from "./c-header.ts";
import { configurationPageText } from "./configuration-page.ts";
import { errorsPageText } from "./errors-page.ts";
import { headers } from "./headers.ts";

/**
 * Writes every generated file, or with --check writes none and exits with 1 when one differs from what it would write.
 */

const generatedFiles = (): ReadonlyMap<string, string> => {
  const sections = headers.map((header) => [header, readSource(header.source)] as const);
  const files = new Map<string, string>([["guest/include/xenolith/types.h", typesHeaderText()]]);
  for (const [header, source] of sections)
    files.set(`guest/include/xenolith/${header.path}`, headerText(header, source));
  files.set("docs/abi.md", abiPageText(sections));
  files.set("docs/errors.md", errorsPageText());
  files.set("docs/configuration.md", configurationPageText());
  files.set("packages/toolstack/domain.schema.json", `${JSON.stringify(configSchema(), null, 2)}\n`);
  return files;
};

const current = (file: string): string | undefined => (existsSync(file) ? readFileSync(file, "utf8") : undefined);

const main = (checkOnly: boolean): void => {
  const differing = [...generatedFiles()].filter(([file, text]) => current(path.join(repositoryRoot, file)) !== text);
  for (const [file, text] of differing) {
    console.log(`${checkOnly ? "differs" : "wrote"}: ${file}`);
    if (checkOnly) continue;
    const target = path.join(repositoryRoot, file);
    mkdirSync(path.dirname(target), { recursive: true });
    writeFileSync(target, text);
  }
  if (checkOnly && differing.length > 0) {
    console.error("generated files are out of date: run `npm run generate` and commit what it writes");
    process.exitCode = 1;
  }
};

main(process.argv.includes("--check"));
