/**
 * An answer that comes piece by piece. The next piece is taken when the client has room for it, so that what a slow
 * client costs is its reader's bounded queue.
 */

/** Where pieces come from. */
export interface StreamReader<T> {
  /** The next piece; undefined at the end. */
  next(): Promise<T | undefined>;
  /** Ends it: `next` returns undefined. May be called again. */
  close(): void;
}

/** The body of an answer: `reader`'s pieces as `encode` writes them. Closes the reader when the client goes. */
export const streamOf = <T>(reader: StreamReader<T>, encode: (piece: T) => Uint8Array): ReadableStream<Uint8Array> =>
  new ReadableStream(
    {
      pull: async (controller) => {
        const piece = await reader.next();
        if (piece !== undefined) {
          controller.enqueue(encode(piece));
          return;
        }
        reader.close();
        controller.close();
      },
      cancel: () => reader.close(),
    },
    { highWaterMark: 0 },
  );
