import assert from "node:assert/strict";
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { constants as systemConstants, tmpdir } from "node:os";
import { join } from "node:path";
import { after, afterEach, beforeEach, describe, it } from "node:test";
import {
  errnoName,
  type FileStatus,
  linkBeneath,
  makeDirectoryBeneath,
  NativeBuffer,
  openBeneath,
  openDescriptorCount,
  OpenFlag,
  type Place,
  readLinkBeneath,
  removeDirectoryBeneath,
  renameBeneath,
  setTimesBeneath,
  statusBeneath,
  symlinkBeneath,
  unlinkBeneath,
  write,
} from "@xenolith/sys";

const { EEXIST, EINVAL, EISDIR, ELOOP, ENAMETOOLONG, ENOENT, ENOTDIR, EXDEV } = systemConstants.errno;

const outer = mkdtempSync(join(tmpdir(), "xenolith-beneath-"));
const root = join(outer, "root");
let rootFd = -1;
let descriptorCount = 0;

const buffer = new NativeBuffer(256);

/** A fresh tree for every test: files, directories, links that stay inside and links that lead out. */
const plant = (): void => {
  rmSync(root, { recursive: true, force: true });
  mkdirSync(join(root, "directory/inner"), { recursive: true });
  mkdirSync(join(root, "empty"));
  mkdirSync(join(outer, "outside"), { recursive: true });
  writeFileSync(join(root, "file"), "content");
  writeFileSync(join(root, "directory/file"), "inner content");
  writeFileSync(join(outer, "outside/secret"), "secret");
  symlinkSync("directory", join(root, "link-in"));
  symlinkSync("file", join(root, "link-file"));
  symlinkSync("nowhere", join(root, "link-dangling"));
  symlinkSync("../outside", join(root, "link-out"));
  symlinkSync(join(outer, "outside"), join(root, "link-absolute"));
  symlinkSync("/proc/self/root", join(root, "link-magic"));
};

beforeEach(() => {
  plant();
  rootFd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
  descriptorCount = openDescriptorCount();
});
afterEach(() => {
  assert.equal(openDescriptorCount(), descriptorCount, "every operation closes what it opened");
  closeSync(rootFd);
});
after(() => {
  rmSync(outer, { recursive: true, force: true });
});

/** Every way out, tried with every operation. None may succeed, whatever lies at the other end. */
const escapes = [
  ["/", EXDEV],
  [join(outer, "outside/secret"), EXDEV],
  [`/${root}/file`, EXDEV],
  ["../outside/secret", EXDEV],
  ["../root/file", EXDEV],
  ["directory/../../outside/secret", EXDEV],
  ["link-out/secret", EXDEV],
  ["link-absolute/secret", EXDEV],
  ["link-in/../../outside/secret", EXDEV],
  [`link-magic${outer}/outside/secret`, EXDEV],
] as const;

/** What every operation refuses alike. */
const malformed = [
  ["", ENOENT],
  ["nul\0byte", EINVAL],
  ["x".repeat(4096), ENAMETOOLONG],
  ["\u20ac".repeat(1366), ENAMETOOLONG],
  ["x".repeat(256), ENAMETOOLONG],
  ["absent/name", ENOENT],
  ["file/name", ENOTDIR],
] as const;

const operations: Readonly<Record<string, (path: string | Uint8Array) => number>> = {
  openBeneath: (path) => openBeneath(rootFd, path, { flags: OpenFlag.READ_ONLY }),
  "openBeneath CREATE": (path) => openBeneath(rootFd, path, { flags: OpenFlag.CREATE | OpenFlag.WRITE_ONLY }),
  statusBeneath: (path) => asResult(statusBeneath(rootFd, path, true)),
  "statusBeneath of a link": (path) => asResult(statusBeneath(rootFd, path, false)),
  setTimesBeneath: (path) => setTimesBeneath(rootFd, path, true, { accessed: "now", modified: "now" }),
  makeDirectoryBeneath: (path) => makeDirectoryBeneath(rootFd, path),
  removeDirectoryBeneath: (path) => removeDirectoryBeneath(rootFd, path),
  unlinkBeneath: (path) => unlinkBeneath(rootFd, path),
  "renameBeneath from": (path) => renameBeneath(place(path), place("moved")),
  "renameBeneath to": (path) => renameBeneath(place("file"), place(path)),
  "linkBeneath from": (path) => linkBeneath(place(path), place("linked")),
  "linkBeneath to": (path) => linkBeneath(place("file"), place(path)),
  symlinkBeneath: (path) => symlinkBeneath("file", rootFd, path),
  readLinkBeneath: (path) => readLinkBeneath(rootFd, path, { address: buffer.address, lengthBytes: 256 }),
};
const place = (path: string | Uint8Array): Place => ({ directoryFd: rootFd, path });
const asResult = (status: FileStatus | number): number => (typeof status === "number" ? status : 0);

/** Every name below a directory, without following links. */
const treeBelow = (directory: string): readonly string[] =>
  readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const path = join(directory, entry.name);
    return entry.isDirectory() ? [path, ...treeBelow(path)] : [path];
  });

describe("paths that lead out", () => {
  for (const [name, operate] of Object.entries(operations)) {
    it(`${name}: refuses every way out, and nothing inside or outside changes`, () => {
      const treeBefore = treeBelow(outer);
      for (const [path, expected] of escapes) {
        assert.equal(errnoName(-operate(path)), errnoName(expected), path);
        assert.equal(operate(new TextEncoder().encode(path)), operate(path), "bytes and text are alike");
      }
      assert.deepEqual(treeBelow(outer), treeBefore);
    });
  }

  for (const [name, operate] of Object.entries(operations)) {
    if (name === "openBeneath CREATE") continue;
    it(`${name}: refuses malformed and impossible paths`, () => {
      for (const [path, expected] of malformed) {
        assert.equal(errnoName(-operate(path)), errnoName(expected), JSON.stringify(path.slice(0, 20)));
      }
    });
  }

  it("changing operations refuse .. as last component; opening it works as long as it stays beneath", () => {
    for (const [name, operate] of Object.entries(operations)) {
      const opens = /^(open|status|setTimes)/.test(name);
      if (opens) continue;
      assert.equal(errnoName(-operate("directory/inner/..")), "EINVAL", name);
      assert.equal(errnoName(-operate("..")), name === "readLinkBeneath" ? "EXDEV" : "EINVAL", name);
    }
    const fd = openBeneath(rootFd, "directory/inner/..", { flags: OpenFlag.PATH });
    assert.ok(fd >= 0);
    closeSync(fd);
    assert.equal(openBeneath(rootFd, "..", { flags: OpenFlag.PATH }), -EXDEV);
  });

  it("a link that stays inside is followed on the way, and noLinks refuses it", () => {
    const flags = OpenFlag.READ_ONLY;
    const fd = openBeneath(rootFd, "link-in/file", { flags });
    assert.ok(fd >= 0);
    closeSync(fd);
    assert.equal(openBeneath(rootFd, "link-in/file", { flags, noLinks: true }), -ELOOP);
    assert.equal(openBeneath(rootFd, "link-file", { flags: flags | OpenFlag.NO_FOLLOW }), -ELOOP);
  });

  it("sameDevice refuses to enter another file system", () => {
    const slash = openSync("/", constants.O_RDONLY);
    const flags = OpenFlag.PATH;
    assert.equal(openBeneath(slash, "proc/version", { flags, sameDevice: true }), -EXDEV);
    const fd = openBeneath(slash, "proc/version", { flags });
    assert.ok(fd >= 0, "control");
    closeSync(fd);
    assert.equal(openBeneath(slash, "proc/self/fd/0", { flags: OpenFlag.READ_ONLY }), -ELOOP, "a magic link");
    closeSync(slash);
  });
});

const thrown = (action: () => void): string => {
  try {
    action();
    return "done";
  } catch (error) {
    return error instanceof Error && "code" in error ? String(error.code) : String(error);
  }
};
const nameOf = (result: number): string => (result < 0 ? errnoName(-result) : "done");

/** The same operations by absolute path, without protection: what Linux itself answers. */
const references: Readonly<Record<string, (path: string) => void>> = {
  makeDirectoryBeneath: (path) => mkdirSync(`${root}/${path}`),
  removeDirectoryBeneath: (path) => {
    rmdirSync(`${root}/${path}`);
  },
  unlinkBeneath: (path) => {
    unlinkSync(`${root}/${path}`);
  },
  "renameBeneath from": (path) => {
    renameSync(`${root}/${path}`, `${root}/moved`);
  },
  "renameBeneath to": (path) => {
    renameSync(`${root}/file`, `${root}/${path}`);
  },
  "linkBeneath from": (path) => {
    linkSync(`${root}/${path}`, `${root}/linked`);
  },
  "linkBeneath to": (path) => {
    linkSync(`${root}/file`, `${root}/${path}`);
  },
  symlinkBeneath: (path) => {
    symlinkSync("file", `${root}/${path}`);
  },
};

describe("results inside are Linux's own", () => {
  const targets = ["file", "directory", "empty", "absent", "link-in", "link-file", "link-dangling", "link-out", "."];
  const paths = targets.flatMap((name) => [name, `${name}/`, `${name}//`, `directory/../${name}`, `link-in/${name}`]);
  for (const [name, reference] of Object.entries(references)) {
    it(`${name}: same result and same tree for ${String(paths.length)} paths`, () => {
      for (const path of paths) {
        plant();
        const expected = thrown(() => {
          reference(path);
        });
        const expectedTree = treeBelow(root);
        plant();
        closeSync(rootFd);
        rootFd = openSync(root, constants.O_RDONLY | constants.O_DIRECTORY);
        const actual = nameOf(operations[name]?.(path) ?? 0);
        // Linux follows a link before a slash here; we do not, so the link itself is what the name means.
        const followed = name === "linkBeneath from" && /^(directory\/\.\.\/)?link-\w+\/+$/.test(path);
        if (!followed) assert.equal(actual, expected, path);
        assert.deepEqual(treeBelow(root), expectedTree, path);
      }
    });
  }
});

describe("what the operations do", () => {
  it("makes, fills, renames across directories, links, and removes", () => {
    assert.equal(makeDirectoryBeneath(rootFd, "made", 0o700), 0);
    assert.equal(lstatSync(join(root, "made")).mode & 0o777, 0o700);
    const fd = openBeneath(rootFd, "made/file", { flags: OpenFlag.CREATE | OpenFlag.WRITE_ONLY, mode: 0o600 });
    assert.ok(fd >= 0);
    assert.equal(write(fd, { address: buffer.address, lengthBytes: 10 }), 10);
    closeSync(fd);
    const subFd = openBeneath(rootFd, "directory", { flags: OpenFlag.PATH | OpenFlag.DIRECTORY });
    assert.equal(renameBeneath(place("made/file"), { directoryFd: subFd, path: "inner/moved" }), 0);
    assert.equal(linkBeneath({ directoryFd: subFd, path: "inner/moved" }, place("again")), 0);
    assert.equal(lstatSync(join(root, "again")).nlink, 2);
    closeSync(subFd);
    assert.equal(unlinkBeneath(rootFd, "again"), 0);
    assert.equal(unlinkBeneath(rootFd, "directory/inner/moved"), 0);
    assert.equal(removeDirectoryBeneath(rootFd, "directory/inner/"), 0);
    assert.equal(existsSync(join(root, "directory/inner")), false);
  });

  it("a link's text is kept as given, and read back cut off at the buffer's length", () => {
    assert.equal(symlinkBeneath("../../any where", rootFd, "text"), 0);
    assert.equal(readlinkSync(join(root, "text")), "../../any where");
    assert.equal(readLinkBeneath(rootFd, "text", { address: buffer.address, lengthBytes: 256 }), 15);
    assert.equal(new TextDecoder().decode(buffer.bytes.subarray(0, 15)), "../../any where");
    assert.equal(readLinkBeneath(rootFd, "text", { address: buffer.address, lengthBytes: 4 }), 4);
    assert.equal(readLinkBeneath(rootFd, "file", { address: buffer.address, lengthBytes: 4 }), -EINVAL);
    assert.equal(symlinkBeneath("", rootFd, "none"), -ENOENT);
    assert.equal(symlinkBeneath("x", rootFd, "text"), -EEXIST);
  });

  it("a name that is not UTF-8 can be made, found and removed as bytes", () => {
    const name = Uint8Array.of(0x66, 0xff, 0xfe);
    assert.equal(makeDirectoryBeneath(rootFd, name), 0);
    assert.equal(asResult(statusBeneath(rootFd, name, false)), 0);
    assert.equal(unlinkBeneath(rootFd, name), -EISDIR);
    assert.equal(removeDirectoryBeneath(rootFd, name), 0);
  });
});
