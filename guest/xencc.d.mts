/** Compiles `sources` (file name -> C text) into a guest, with the guest library unless `library` is false. */
export declare const compileGuest: (
  sources: Readonly<Record<string, string | Uint8Array>>,
  options?: { readonly wasi?: boolean; readonly library?: boolean; readonly flags?: readonly string[] },
) => Promise<Uint8Array>;
