/**
 * Program of the helper process: stores to every page of the file at descriptor 3, whose size is its argument, and ends.
 * It may be killed for want of memory: that is what it is for. See `growth.ts`.
 */
import { forbidCoreDumps, mapAnywhere, PAGE_BYTES, PROT_READ_WRITE, viewMemory } from "@xenolith/sys";

const FD = 3;

forbidCoreDumps();
const lengthBytes = Number(process.argv[2]);
const address = mapAnywhere({ fd: FD, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
const bytes = new Uint8Array(viewMemory(address, lengthBytes));
for (let at = 0; at < lengthBytes; at += PAGE_BYTES) bytes[at] = 0;
