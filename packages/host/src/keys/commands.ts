/**
 * The commands of key_op: what each reads of the guest, and which operation of the key service it is. One row per command;
 * serve-call.ts goes through the row in the same order for all of them.
 */
import * as abi from "@xenolith/abi";
import type { Answer, KeyService, PayloadTarget, Process } from "@xenolith/keys";
import type { Field, KeyArguments, TextField } from "./key-call.ts";

/** A call that was read and checked, and who makes it. */
export interface ReadCall {
  readonly service: KeyService;
  readonly process: Process;
  /** The struct: only numbers are read of it any more. */
  readonly arguments: KeyArguments;
  readonly flags: number;
  /** The texts of the row, in its order; null where the guest gave none. */
  readonly texts: readonly (Uint8Array | null)[];
  /** Only lent for the call of `run`; null for none. */
  readonly payload: Uint8Array | null;
  /** Where the answer's bytes go, for rows with a buffer. */
  readonly target: PayloadTarget | undefined;
}

/** A row. */
export interface KeyCommand {
  readonly struct: { readonly sizeBytes: number };
  readonly flags?: Field;
  /** Flags that there are; others are -EINVAL. */
  readonly knownFlags?: number;
  readonly texts?: readonly TextField[];
  readonly payload?: PayloadField;
  readonly buffer?: BufferField;
  /** Members that are ids of keys: those of keys that the caller may not know of are as if there were none. */
  readonly ids?: readonly Field[];
  readonly run: (call: ReadCall) => Answer;
}

/** A payload in the guest's memory. */
export interface PayloadField {
  readonly address: Field;
  readonly length: Field;
  readonly max: number;
}

/** A buffer in the guest's memory. */
export interface BufferField {
  readonly address: Field;
  readonly length: Field;
  /** The flag with which it may be in ordinary memory; 0: it always may. */
  readonly ordinaryFlag: number;
}

const { xen_key_add: add, xen_key_request: request, xen_key_search: search, xen_key_read: read } = abi;
const { xen_key_update: update, xen_key_describe: describe, xen_key_id: id, xen_key_link: link } = abi;
const { xen_key_set_timeout: timeout, xen_key_get_keyring_id: keyring, xen_key_join_session: join } = abi;

interface NamesKey {
  readonly type: Field;
  readonly type_len: Field;
  readonly description: Field;
  readonly description_len: Field;
}

/** Type and description, as three of the structs have them. */
const textsOf = (struct: NamesKey): readonly TextField[] => [
  { address: struct.type, length: struct.type_len, min: 1, max: abi.XENKEY_TYPE_MAX },
  { address: struct.description, length: struct.description_len, min: 0, max: abi.XENKEY_DESCRIPTION_MAX },
];

const NOTHING = new Uint8Array(0);
const textAt = ({ texts }: ReadCall, index: number): Uint8Array => texts[index] ?? NOTHING;

/** An operation on one key or keyring. */
const onId = (run: (service: KeyService, process: Process, key: number) => Answer): KeyCommand => ({
  struct: id,
  ids: [id.key],
  run: (call) => run(call.service, call.process, call.arguments.get(id.key)),
});

/** An operation on a key and a keyring. */
const onLink = (run: (service: KeyService, process: Process, key: number, ring: number) => Answer): KeyCommand => ({
  struct: link,
  ids: [link.key, link.ring],
  run: (call) => run(call.service, call.process, call.arguments.get(link.key), call.arguments.get(link.ring)),
});

/** The commands by number. */
export const keyCommands: Readonly<Record<number, KeyCommand>> = {
  [abi.XENKEY_add]: {
    struct: add,
    flags: add.flags,
    knownFlags: abi.XENKEYF_secret_payload,
    texts: textsOf(add),
    payload: { address: add.payload, length: add.payload_len, max: abi.XENKEY_PAYLOAD_MAX },
    ids: [add.ring],
    run: (call) =>
      call.service.addKey(call.process, textAt(call, 0), textAt(call, 1), call.payload, call.arguments.get(add.ring)),
  },
  [abi.XENKEY_request]: {
    struct: request,
    flags: request.flags,
    knownFlags: abi.XENKEYF_callout,
    texts: [
      ...textsOf(request),
      {
        address: request.callout,
        length: request.callout_len,
        min: 0,
        max: abi.XENKEY_CALLOUT_MAX,
        flag: abi.XENKEYF_callout,
      },
    ],
    ids: [request.ring],
    run: (call) =>
      call.service.requestKey(
        call.process,
        textAt(call, 0),
        textAt(call, 1),
        call.texts[2] ?? null,
        call.arguments.get(request.ring),
      ),
  },
  [abi.XENKEY_search]: {
    struct: search,
    texts: textsOf(search),
    ids: [search.ring, search.destination],
    run: (call) =>
      call.service.search(
        call.process,
        call.arguments.get(search.ring),
        textAt(call, 0),
        textAt(call, 1),
        call.arguments.get(search.destination),
      ),
  },
  [abi.XENKEY_read]: {
    struct: read,
    flags: read.flags,
    knownFlags: abi.XENKEYF_ordinary_memory,
    buffer: { address: read.buffer, length: read.length, ordinaryFlag: abi.XENKEYF_ordinary_memory },
    ids: [read.key],
    run: (call) => call.service.read(call.process, call.arguments.get(read.key), call.target),
  },
  [abi.XENKEY_update]: {
    struct: update,
    flags: update.flags,
    knownFlags: abi.XENKEYF_secret_payload,
    payload: { address: update.payload, length: update.payload_len, max: abi.XENKEY_UPDATE_MAX },
    ids: [update.key],
    run: (call) => call.service.update(call.process, call.arguments.get(update.key), call.payload),
  },
  [abi.XENKEY_describe]: {
    struct: describe,
    buffer: { address: describe.buffer, length: describe.length, ordinaryFlag: 0 },
    ids: [describe.key],
    run: (call) => describeInto(call, call.arguments.get(describe.key)),
  },
  [abi.XENKEY_revoke]: onId((service, process, key) => service.revoke(process, key)),
  [abi.XENKEY_invalidate]: onId((service, process, key) => service.invalidate(process, key)),
  [abi.XENKEY_link]: onLink((service, process, key, ring) => service.link(process, key, ring)),
  [abi.XENKEY_unlink]: onLink((service, process, key, ring) => service.unlink(process, key, ring)),
  [abi.XENKEY_clear]: onId((service, process, key) => service.clear(process, key)),
  [abi.XENKEY_set_timeout]: {
    struct: timeout,
    ids: [timeout.key],
    run: (call) =>
      call.service.setTimeout(call.process, call.arguments.get(timeout.key), call.arguments.get(timeout.seconds)),
  },
  [abi.XENKEY_get_keyring_id]: {
    struct: keyring,
    flags: keyring.flags,
    knownFlags: abi.XENKEYF_create,
    ids: [keyring.ring],
    run: (call) =>
      call.service.getKeyringId(
        call.process,
        call.arguments.get(keyring.ring),
        (call.flags & abi.XENKEYF_create) !== 0,
      ),
  },
  [abi.XENKEY_join_session]: {
    struct: join,
    flags: join.flags,
    knownFlags: abi.XENKEYF_named,
    texts: [
      {
        address: join.name,
        length: join.name_len,
        min: 0,
        max: abi.XENKEY_DESCRIPTION_MAX,
        flag: abi.XENKEYF_named,
      },
    ],
    run: (call) => call.service.joinSession(call.process, call.texts[0] ?? null),
  },
};

/** The service fills texts byte by byte; the guest's buffer takes them whole. */
const describeInto = ({ service, process, target }: ReadCall, key: number): Answer => {
  const size = service.describe(process, key);
  if (typeof size !== "number" || size < 0 || target === undefined || target.length < size) return size;
  const text = new Uint8Array(size);
  const again = service.describe(process, key, text);
  target.set(text);
  return again;
};
