/** Guests written in WebAssembly's text format. */
import wabtInit from "wabt";

const wabt = await wabtInit();
const features = {
  bulk_memory: true,
  multi_value: true,
  mutable_globals: true,
  sat_float_to_int: true,
  sign_extension: true,
  simd: true,
  threads: true,
};

/** Assembles a module. */
export const assembleGuest = (text: string): Uint8Array<ArrayBuffer> => {
  const { buffer } = wabt.parseWat("guest.wat", text, features).toBinary({ write_debug_names: true });
  return new Uint8Array(buffer);
};
