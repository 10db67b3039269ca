/**
 * Which of the errors that a search met it answers with. "documented": the highest of EKEYREVOKED, EKEYEXPIRED and what a
 * negative key says. "linux-6": the last one in one tree, as Linux 6 does, and its choice between trees.
 */
export type ErrorPriority = "documented" | "linux-6";
