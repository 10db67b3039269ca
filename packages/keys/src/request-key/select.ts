import type { Rule } from "./config-line.ts";

/** What a rule is looked for, in the order of a rule's fields: operation, type, description, callout. */
export type Facts = readonly [operation: string, type: string, description: string, callout: string];

/** How a pattern with text on both sides of its star is matched. */
export type WildcardForm = "documented" | "keyutils-1.6.3";

/**
 * How many characters the star of a pattern swallows; 0 without a star, undefined when it does not match. Only the first
 * star is one. keyutils 1.6.3 compares the end of the text with the beginning of the pattern, so that a star in the
 * middle hardly ever matches.
 */
export const swallowed = (pattern: string, text: string, form: WildcardForm = "documented"): number | undefined => {
  const star = pattern.indexOf("*");
  if (star < 0) return pattern === text ? 0 : undefined;
  const head = pattern.slice(0, star);
  const tail = pattern.slice(star + 1);
  const count = text.length - head.length - tail.length;
  const ending = form === "documented" ? tail : pattern.slice(0, tail.length);
  return count >= 0 && text.startsWith(head) && text.endsWith(ending) ? count : undefined;
};

const scoresOf = (rule: Rule, facts: Facts, form: WildcardForm): readonly number[] | undefined => {
  const scores: number[] = [];
  for (const [at, pattern] of rule.patterns.entries()) {
    const score = swallowed(pattern, facts[at]!, form);
    if (score === undefined) return undefined;
    scores.push(score);
  }
  return scores;
};

const isBetter = (scores: readonly number[], best: readonly number[]): boolean => {
  for (const [at, score] of scores.entries()) {
    const other = best[at] ?? 0;
    if (score !== other) return score < other;
  }
  return false;
};

/**
 * The rule that matches most exactly: the fewest characters swallowed by a star, in the operation first, then type,
 * description and callout; of equals, the one that was read first. A malformed rule is one too, as far as its fields go:
 * a typing error must not let a broader rule act instead.
 */
export const selectRule = (rules: readonly Rule[], facts: Facts, form?: WildcardForm): Rule | undefined => {
  let best: Rule | undefined;
  let bestScores: readonly number[] = [];
  for (const rule of rules) {
    const scores = scoresOf(rule, facts, form ?? "documented");
    if (scores === undefined) continue;
    if (rule.problem !== undefined) return rule;
    if (best !== undefined && !isBetter(scores, bestScores)) continue;
    best = rule;
    bestScores = scores;
  }
  return best;
};
