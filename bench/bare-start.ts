/** A Worker that does nothing but say when its first line ran. */
import { parentPort } from "node:worker_threads";

parentPort!.postMessage(process.hrtime.bigint());
