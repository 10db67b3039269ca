// SPDX-License-Identifier: Apache-2.0
/**
 * QuickJS from the npm package quickjs-wasi, as a domain: a reactor that the demo calls like a library. Values cross as
 * numbers, strings through the domain's memory.
 */
const i32 = (count) => Array.from({ length: count }, () => "i32");
const answering = (params, value) => ({
  params: i32(params),
  results: value === undefined ? [] : ["i32"],
  call: () => value,
});

/** What the published module wants from its embedder; none of it is used by this demo's program. */
export const quickjsImports = {
  env: {
    host_get_timezone_offset: answering(2, 0),
    host_interrupt: answering(0, 0),
    host_promise_rejection: answering(3),
    host_module_normalize: answering(2, 0),
    host_module_load: answering(2, 0),
    host_call: answering(5, 0),
  },
};

/** Puts a zero-terminated string into the guest's heap; returns address and length. */
const putString = async (domain, text) => {
  const bytes = new TextEncoder().encode(`${text}\0`);
  const address = (await domain.call("wasm_malloc", bytes.length)) >>> 0;
  domain.write(address, bytes);
  return { address, length: bytes.length - 1 };
};

const getString = (domain, address) => {
  let bytes = new Uint8Array(0);
  for (let size = 64; !bytes.includes(0) && size <= 65_536; size *= 4) bytes = domain.read(address, size);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
};

/** Evaluates a program in the domain and returns its value as a string. Throws what the program throws. */
export const evaluate = async (domain, source) => {
  const code = await putString(domain, source);
  const name = await putString(domain, "demo.js");
  const value = await domain.call("qjs_eval", code.address, code.length, name.address, 0);
  const failed = await domain.call("qjs_is_exception", value);
  const shown = failed ? await domain.call("qjs_get_exception") : value;
  const address = (await domain.call("qjs_get_string", shown)) >>> 0;
  const text = getString(domain, address);
  await domain.call("qjs_free_cstring", address);
  await domain.call("qjs_free_value", shown);
  await domain.call("wasm_free", code.address);
  await domain.call("wasm_free", name.address);
  if (failed) throw new Error(`the guest's program failed: ${text}`);
  return text;
};
