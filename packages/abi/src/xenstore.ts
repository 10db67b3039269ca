import { chars, named, u32 } from "./scalar.ts";
import { struct } from "./struct.ts";
import { evtchn_port_t } from "./types.ts";

// The xenstore page and its message header. Source: xen/include/public/io/xs_wire.h.

const XENSTORE_RING_IDX = named(u32, "XENSTORE_RING_IDX");

export const XENSTORE_RING_SIZE = 1024;
export const XENSTORE_PAYLOAD_MAX = 4096;
export const XENSTORE_ABS_PATH_MAX = 3072;
export const XENSTORE_REL_PATH_MAX = 2048;

export const XENSTORE_SERVER_FEATURE_RECONNECTION = 1;
export const XENSTORE_SERVER_FEATURE_ERROR = 2;
export const XENSTORE_CONNECTED = 0;
export const XENSTORE_RECONNECT = 1;
export const XENSTORE_ERROR_NONE = 0;
export const XENSTORE_ERROR_COMM = 1;
export const XENSTORE_ERROR_RINGIDX = 2;
export const XENSTORE_ERROR_PROTO = 3;

/** The head of every message, in both directions. */
export const xsd_sockmsg = struct("xsd_sockmsg", 16, {
  type: u32,
  req_id: u32,
  tx_id: u32,
  /** Bytes that follow. */
  len: u32,
});

/** Two byte rings with free-running indices. The guest writes `req` and reads `rsp`. */
export const xenstore_domain_interface = struct("xenstore_domain_interface", 2080, {
  req: chars(XENSTORE_RING_SIZE),
  rsp: chars(XENSTORE_RING_SIZE),
  req_cons: XENSTORE_RING_IDX,
  req_prod: XENSTORE_RING_IDX,
  rsp_cons: XENSTORE_RING_IDX,
  rsp_prod: XENSTORE_RING_IDX,
  server_features: u32,
  connection: u32,
  error: u32,
  evtchn_port: evtchn_port_t,
});
