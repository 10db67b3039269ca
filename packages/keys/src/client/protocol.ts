/**
 * What `xkeyd` and its clients say to each other: docs/key-protocol.md. The table of operations is the only place where
 * their numbers and arguments stand; both ends are made from it.
 */

/** First argument of `hello`: the letters "XKEY", read as a number. */
export const PROTOCOL_MAGIC = 0x5945_4b58;
/** Second argument of `hello`, and its result. */
export const PROTOCOL_VERSION = 1;

/** What may follow the length word of a frame: the largest payload with the longest texts, and something to spare. */
export const FRAME_BYTES_MAX = 2 ** 20 + 2 ** 16;
/** The length word of every frame does not count itself. */
export const LENGTH_WORD_BYTES = 4;
/** The length of a text or payload that is absent, which is not the same as an empty one. */
export const ABSENT = 0xffff_ffff;
/** The request id of the reply that says, before the daemon hangs up, that the client broke the protocol. */
export const NO_REQUEST = 0xffff_ffff;

/**
 * Arguments: 32-bit words, little-endian, signed (`id`) or unsigned (`word`), and byte runs with a length word in front
 * (`text`, `bytes`); with a question mark, where they may be absent.
 */
export type ArgumentKind = "id" | "word" | "text" | "text?" | "bytes?";

/** Every operation: its number on the wire and its arguments. What they mean: keyctl(2) and docs/key-protocol.md. */
export const operations = {
  hello: { code: 0, arguments: ["word", "word"] },
  addKey: { code: 1, arguments: ["text", "text?", "bytes?", "id"] },
  requestKey: { code: 2, arguments: ["text", "text", "text?", "id"] },
  getKeyringId: { code: 3, arguments: ["id", "word"] },
  joinSession: { code: 4, arguments: ["text?"] },
  update: { code: 5, arguments: ["id", "bytes?"] },
  revoke: { code: 6, arguments: ["id"] },
  chown: { code: 7, arguments: ["id", "word", "word"] },
  setPermissions: { code: 8, arguments: ["id", "word"] },
  describe: { code: 9, arguments: ["id", "word"] },
  clear: { code: 10, arguments: ["id"] },
  link: { code: 11, arguments: ["id", "id"] },
  unlink: { code: 12, arguments: ["id", "id"] },
  search: { code: 13, arguments: ["id", "text", "text", "id"] },
  read: { code: 14, arguments: ["id", "word"] },
  instantiate: { code: 15, arguments: ["id", "bytes?", "id"] },
  negate: { code: 16, arguments: ["id", "word", "id"] },
  reject: { code: 17, arguments: ["id", "word", "word", "id"] },
  setDefaultRing: { code: 18, arguments: ["id"] },
  setTimeout: { code: 19, arguments: ["id", "word"] },
  assumeAuthority: { code: 20, arguments: ["id"] },
  getSecurity: { code: 21, arguments: ["id", "word"] },
  sessionToParent: { code: 22, arguments: [] },
  invalidate: { code: 23, arguments: ["id"] },
  getPersistent: { code: 24, arguments: ["word", "id"] },
  restrict: { code: 25, arguments: ["id", "text?", "text?"] },
  move: { code: 26, arguments: ["id", "id", "id", "word"] },
  capabilities: { code: 27, arguments: ["word"] },
  notSupported: { code: 28, arguments: ["word"] },
  procKeys: { code: 29, arguments: ["id"] },
  procKeyUsers: { code: 30, arguments: [] },
  limit: { code: 31, arguments: ["text"] },
  setLimit: { code: 32, arguments: ["text", "word"] },
  cancel: { code: 33, arguments: ["word"] },
} as const satisfies Readonly<Record<string, { readonly code: number; readonly arguments: readonly ArgumentKind[] }>>;

/** The name of an operation. */
export type OperationName = keyof typeof operations;

interface Values {
  readonly id: number;
  readonly word: number;
  readonly text: Uint8Array;
  readonly "text?": Uint8Array | null;
  readonly "bytes?": Uint8Array | null;
}

interface Wishes {
  readonly id: number;
  readonly word: number;
  readonly text: string | Uint8Array;
  readonly "text?": string | Uint8Array | null;
  readonly "bytes?": Uint8Array | null;
}

type Received<Kinds extends readonly ArgumentKind[]> = { -readonly [At in keyof Kinds]: Values[Kinds[At]] };
type Sent<Kinds extends readonly ArgumentKind[]> = { readonly [At in keyof Kinds]: Wishes[Kinds[At]] };

/** The arguments of an operation as the daemon gets them: views of the frame. */
export type ReceivedArguments<Name extends OperationName> = Received<(typeof operations)[Name]["arguments"]>;

/** The arguments of an operation as a client gives them; strings travel as UTF-8. */
export type SentArguments<Name extends OperationName> = Sent<(typeof operations)[Name]["arguments"]>;

const isOperation = (name: string): name is OperationName => name in operations;

/** Names by number. */
export const operationNames: readonly (OperationName | undefined)[] = (() => {
  const names: (OperationName | undefined)[] = [];
  for (const name of Object.keys(operations)) if (isOperation(name)) names[operations[name].code] = name;
  return names;
})();
