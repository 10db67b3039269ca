import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { describe, it } from "node:test";
import { errno } from "@xenolith/abi";
import {
  closeDescriptor,
  createMemfd,
  lockedBytes,
  lockMemory,
  mapAnywhere,
  PAGE_BYTES,
  PROT_READ,
  PROT_READ_WRITE,
  protect,
  reserveAnywhere,
  sealMapping,
  unmap,
} from "@xenolith/sys";

const mapped = (lengthBytes: number): number => {
  const fd = createMemfd({ name: "test-locked", sizeBytes: lengthBytes });
  const address = mapAnywhere({ fd, offsetBytes: 0, lengthBytes, protection: PROT_READ_WRITE });
  closeDescriptor(fd);
  return address;
};

describe("locked memory", () => {
  it("is counted while it is mapped, and what is not mapped cannot be locked", () => {
    const before = lockedBytes();
    const address = mapped(4 * PAGE_BYTES);
    assert.equal(lockMemory(address, 4 * PAGE_BYTES), 0);
    assert.equal(lockedBytes() - before, 4 * PAGE_BYTES);
    assert.equal(unmap(address, 4 * PAGE_BYTES), 0);
    assert.equal(lockedBytes(), before);
    const hole = reserveAnywhere(PAGE_BYTES);
    assert.equal(lockMemory(hole, PAGE_BYTES), -errno.ENOMEM);
    unmap(hole, PAGE_BYTES);
  });

  it("of a process without privileges ends at RLIMIT_MEMLOCK", { skip: process.getuid?.() !== 0 }, () => {
    const program = `
      import * as sys from ${JSON.stringify(new URL("../src/index.js", import.meta.url).href)};
      const fd = sys.createMemfd({ name: "limited", sizeBytes: 2 ** 20 });
      const address = sys.mapAnywhere({ fd, offsetBytes: 0, lengthBytes: 2 ** 20, protection: 3 });
      const root = sys.mayLockBeyondLimit();
      process.setgid(65534); process.setuid(65534);
      const results = [sys.lockMemory(address, 65536), sys.lockMemory(address, 2 ** 20), sys.mayLockBeyondLimit(), root];
      console.log(results.join(" "));`;
    const command = 'ulimit -l 64; exec "$0" --input-type=module --eval "$1"';
    const child = spawnSync("sh", ["-c", command, process.execPath, program], { encoding: "utf8" });
    assert.equal(child.stdout, `0 ${-errno.ENOMEM} false true\n`, child.stderr);
  });
});

describe("a sealed mapping", () => {
  it("keeps its protection and cannot be unmapped; an unsealed one can", (t) => {
    const address = mapped(PAGE_BYTES);
    assert.equal(protect(address, PAGE_BYTES, PROT_READ), 0, "control");
    const sealed = sealMapping(address, PAGE_BYTES);
    if (sealed === -errno.ENOSYS) {
      t.skip("this kernel has no mseal");
      return;
    }
    assert.equal(sealed, 0);
    assert.equal(protect(address, PAGE_BYTES, PROT_READ_WRITE), -1);
    assert.equal(unmap(address, PAGE_BYTES), -1);
  });
});
