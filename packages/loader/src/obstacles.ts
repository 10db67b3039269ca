import type { CodeFindings } from "./code-rewriter.ts";
import type { ModuleShape } from "./module-shape.ts";
import { featureBits } from "./opcodes.ts";

/**
 * What would stop a running instance from being saved or moved: state that lies in the engine and that JavaScript
 * cannot read. Saved are the memory, the mutable globals and the tables.
 */
export function findObstacles(shape: ModuleShape, findings: CodeFindings, features: number): string[] {
  const obstacles: string[] = [];
  const canUnwind = shape.exports.some(({ name, kind }) => kind === "function" && name === "asyncify_start_unwind");
  if (!canUnwind) {
    obstacles.push("no asyncify_start_unwind: can be saved only while no guest function is on a vCPU's stack");
  }
  const isHidden = ({ type, mutable }: { type: string; mutable: boolean }) =>
    mutable && (type === "v128" || type === "exnref");
  for (const [index, global] of shape.globals.entries()) {
    if (isHidden(global)) obstacles.push(`global ${index} is a mutable ${global.type}, which JavaScript cannot read`);
  }
  if (shape.tables.some(({ elementType }) => elementType === "exnref")) {
    obstacles.push("a table of exnref, which JavaScript cannot read");
  }
  if ((features & featureBits.exceptions) !== 0) {
    obstacles.push("exceptions with exnref: a caught exception can be held outside the memory");
  }
  if (findings.dropsElements) obstacles.push("elem.drop: which element segments were dropped is not recorded");
  return obstacles;
}
