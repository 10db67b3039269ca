/**
 * Where in a TOML text a key stands: for messages only, so it knows no more of TOML than it needs to find keys.
 */

const ASSIGNMENT = /^\s*((?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*')(?:\s*\.\s*(?:[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*'))*)\s*=/;
const PART = /[\w-]+|"(?:[^"\\]|\\.)*"|'[^']*'/g;

/** What is still open at the end of a line: how many brackets, and a text of several lines. */
interface Open {
  readonly depth: number;
  readonly quote: '"""' | "'''" | undefined;
}

/**
 * Number, from 1, of the line on which the value of `path` begins, or the innermost of its parents that has a line;
 * undefined when there is none.
 */
export const lineOf = (text: string, path: readonly string[]): number | undefined => {
  let best: { readonly line: number; readonly length: number } | undefined;
  let table: readonly string[] = [];
  let open: Open = { depth: 0, quote: undefined };
  for (const [index, line] of text.split("\n").entries()) {
    const isStatement = open.depth === 0 && open.quote === undefined;
    const isHeader = isStatement && line.trimStart().startsWith("[");
    const key = isStatement && !isHeader ? ASSIGNMENT.exec(line)?.[1] : undefined;
    if (isHeader) table = partsOf(line.split("#", 1)[0]!);
    const here = key === undefined ? (isHeader ? table : undefined) : [...table, ...partsOf(key)];
    const length = here?.length ?? 0;
    if (length > (best?.length ?? 0) && startsWith(path, here!)) best = { line: index + 1, length };
    if (!isHeader) open = afterLine(line, open);
  }
  return best?.line;
};

const partsOf = (key: string): readonly string[] =>
  (key.match(PART) ?? []).map((part) => (/^["']/.test(part) ? part.slice(1, -1) : part));

const startsWith = (path: readonly string[], parts: readonly string[]): boolean =>
  parts.length <= path.length && parts.every((part, index) => path[index] === part);

const TOKEN = /"""|'''|"(?:[^"\\]|\\.)*"|'[^']*'|[[\]{}#]/g;

/** What is open after a line that began with `before` open. */
const afterLine = (line: string, before: Open): Open => {
  let { depth, quote } = before;
  let rest = line;
  while (rest !== "") {
    if (quote !== undefined) {
      const end = rest.indexOf(quote);
      if (end < 0) return { depth, quote };
      rest = rest.slice(end + 3);
      quote = undefined;
    }
    TOKEN.lastIndex = 0;
    const token = TOKEN.exec(rest);
    if (token === null || token[0] === "#") break;
    rest = rest.slice(token.index + token[0].length);
    if (token[0] === '"""' || token[0] === "'''") quote = token[0];
    else if (token[0] === "[" || token[0] === "{") depth += 1;
    else if (token[0] === "]" || token[0] === "}") depth -= 1;
  }
  return { depth, quote };
};
