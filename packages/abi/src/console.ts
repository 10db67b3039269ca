import { chars, named, pad, u32, u8 } from "./scalar.ts";
import { struct } from "./struct.ts";

// The console page. Source: xen/include/public/io/console.h.

const XENCONS_RING_IDX = named(u32, "XENCONS_RING_IDX");

export const XENCONSOLE_CONNECTED = 0;
export const XENCONSOLE_DISCONNECTED = 1;

/** Two byte rings with free-running indices. The guest reads `in` and writes `out`. */
export const xencons_interface = struct("xencons_interface", 3092, {
  in: chars(1024),
  out: chars(2048),
  in_cons: XENCONS_RING_IDX,
  in_prod: XENCONS_RING_IDX,
  out_cons: XENCONS_RING_IDX,
  out_prod: XENCONS_RING_IDX,
  connection: u8,
  _pad0: pad(3),
});
