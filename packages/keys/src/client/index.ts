export { KeyClient } from "./client.ts";
export type { ConnectOptions, RequestOptions } from "./client.ts";
export { KeyConnection } from "./connection.ts";
export type { CallOptions, KeyReply } from "./connection.ts";
export { KeyError } from "./key-error.ts";
export { KeyHandle } from "./key-handle.ts";
export type { KeyDescription, Ring } from "./key-handle.ts";
export type { OperationName, SentArguments } from "./protocol.ts";
export { defaultKeySocket } from "./socket-path.ts";
