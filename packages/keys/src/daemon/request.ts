import { EFAULT } from "../errno.ts";
import {
  ABSENT,
  type ArgumentKind,
  type OperationName,
  operationNames,
  operations,
  type ReceivedArguments,
} from "../client/protocol.ts";

const ID_AT = 0;
const OPERATION_AT = 4;
const ARGUMENTS_AT = 8;

/** The id of the request in a frame, whatever else is wrong with it. */
export const requestId = (frame: Buffer): number => frame.readUInt32LE(ID_AT);

/** The operation that a frame asks for; undefined for a number that no operation has. */
export const requestOperation = (frame: Buffer): OperationName | undefined =>
  operationNames[frame.readUInt32LE(OPERATION_AT)];

/**
 * Decodes the arguments of a frame. "malformed" when they do not fill the frame exactly, which no client of ours
 * sends; -EFAULT when one is absent that must be there, which the kernel says of a null pointer.
 */
export const decodeArguments = <Name extends OperationName>(
  frame: Buffer,
  name: Name,
): ReceivedArguments<Name> | "malformed" | number => {
  const values: (number | Uint8Array | null)[] = [];
  let at = ARGUMENTS_AT;
  let refusal = 0;
  for (const kind of operations[name].arguments) {
    if (at + 4 > frame.length) return "malformed";
    if (isWord(kind)) {
      values.push(kind === "id" ? frame.readInt32LE(at) : frame.readUInt32LE(at));
      at += 4;
      continue;
    }
    const length = frame.readUInt32LE(at);
    at += 4;
    if (length === ABSENT) {
      if (kind === "text") refusal = -EFAULT;
      values.push(null);
      continue;
    }
    if (length > frame.length - at) return "malformed";
    values.push(frame.subarray(at, at + length));
    at += length;
  }
  if (at !== frame.length) return "malformed";
  if (refusal !== 0) return refusal;
  // The loop followed the same table that the type is made from.
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion
  return values as ReceivedArguments<Name>;
};

const isWord = (kind: ArgumentKind): boolean => kind === "id" || kind === "word";

/** Whether the operation has texts or payloads, which point into the frame. */
export const pointsIntoFrame = (name: OperationName): boolean => runs.has(name);

const runs: ReadonlySet<OperationName> = new Set(
  operationNames.filter(
    (name): name is OperationName => name !== undefined && operations[name].arguments.some((kind) => !isWord(kind)),
  ),
);
