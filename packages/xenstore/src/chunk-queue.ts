/** Bytes that came in pieces and are taken in others. */
export class ChunkQueue {
  readonly #chunks: Uint8Array[] = [];
  #bytes = 0;

  get bytes(): number {
    return this.#bytes;
  }

  push(chunk: Uint8Array): void {
    if (chunk.length === 0) return;
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
  }

  /** Fills `target` as far as bytes are there; returns how many. */
  read(target: Uint8Array): number {
    let count = 0;
    for (let chunk = this.#chunks[0]; chunk !== undefined && count < target.length; chunk = this.#chunks[0]) {
      const part = chunk.subarray(0, target.length - count);
      target.set(part, count);
      count += part.length;
      if (part.length === chunk.length) this.#chunks.shift();
      else this.#chunks[0] = chunk.subarray(part.length);
    }
    this.#bytes -= count;
    return count;
  }

  clear(): void {
    this.#chunks.length = 0;
    this.#bytes = 0;
  }
}
