/**
 * A service as a process of its own, for tests that kill it: `node service-child.js SOCKET STATE CACHE`. Says `ready`
 * when it answers, and what stopped it when it cannot.
 */
import { XenolithError } from "@xenolith/abi";
import { runService } from "../src/daemon/run-service.ts";

const [socketPath, stateDirectory, cacheDirectory] = process.argv.slice(2);

try {
  await runService(
    {
      socketPath: socketPath!,
      stateDirectory: stateDirectory!,
      logLevel: "silent",
      host: { memoryBytes: 64 * 2 ** 20, warmVcpuCount: 0, cacheDirectory: cacheDirectory! },
    },
    () => process.stdout.write("ready\n"),
  );
} catch (error) {
  process.stdout.write(`${error instanceof XenolithError ? error.code : ""} ${String(error)}\n`);
  process.exitCode = 1;
}
