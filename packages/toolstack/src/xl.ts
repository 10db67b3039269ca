import { quickList } from "./quick-list.ts";

const words = process.argv.slice(2);
process.exitCode = (await quickList(words)) ?? (await (await import("./program.ts")).main(words));
