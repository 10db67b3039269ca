import assert from "node:assert/strict";
import path from "node:path";
import { describe, it } from "node:test";
import fc from "fast-check";
import { configOf, type DomainConfig, domainOptionsOf, parseConfig, readConfig } from "../src/config/index.ts";
import { lineOf } from "../src/config/locate.ts";

const MIB = 2 ** 20;
const least = `name = "web"\nkernel = "web.wasm"\n`;
const parse = (text: string, overrides: readonly string[] = []): DomainConfig =>
  parseConfig(text, "/etc/xl/web.toml", overrides);
const withMemory = (text: string): DomainConfig => parse(`${least}memory = ${text}\n`);

const refused = (text: string, messages: readonly RegExp[], overrides: readonly string[] = []): void => {
  assert.throws(
    () => parse(text, overrides),
    (error: Error & { code?: string }) => {
      assert.equal(error.code, "CONFIG_INVALID");
      const lines = error.message.split("\n");
      assert.equal(lines.length, messages.length, error.message);
      for (const [index, message] of messages.entries()) assert.match(lines[index]!, message);
      return true;
    },
  );
};

describe("a configuration", () => {
  it("of a name and a kernel has every default filled in", () => {
    assert.deepEqual(parse(least), {
      name: "web",
      kernel: "/etc/xl/web.wasm",
      memoryBytes: 256 * MIB,
      memoryBytesMax: 256 * MIB,
      memoryBytesMin: 256 * MIB,
      weight: 256,
      squeeze: "off",
      secretBytesMax: 65_536,
      deviceModelMemoryBytes: 0,
      vcpus: 1,
      commandLine: "",
      arguments: ["web.wasm"],
      environment: {},
      directories: [],
      keys: {},
      onPoweroff: "destroy",
      onReboot: "restart",
      onCrash: "destroy",
      onWatchdog: "destroy",
      autostart: false,
      preemptible: false,
    });
  });
  it("survives JSON", () => {
    const config = parse(`${least}args = ["-v"]\ndirectories = ["./data::/data:ro"]\n[environment]\nLANG = "C"\n`);
    assert.deepEqual(JSON.parse(JSON.stringify(config)), config);
  });
  it("gives what the host creates the domain from", () => {
    const text = `${least}memory = 64\nmaxmem = 128\nvcpus = 2\nextra = "quiet"\nroot = "/dev/xvda"\n`;
    const options = domainOptionsOf(parse(`${text}args = ["-v"]\ndirectories = ["data::/data:ro", "/srv::/srv"]\n`));
    assert.equal(options.memoryBytesMax, 64 * MIB);
    assert.equal(options.commandLine, "root=/dev/xvda quiet");
    assert.deepEqual(options.arguments, ["web.wasm", "-v"]);
    assert.deepEqual(options.directories, [
      { host: "/etc/xl/data", guest: "/data", readOnly: true },
      { host: "/srv", guest: "/srv", readOnly: false },
    ]);
  });
  it("of a device model names its target, which must exist", () => {
    const config = parse(`${least}device_model_for = "guest"\nseclabel = "stubdom"\n`);
    const options = domainOptionsOf(config, (name) => (name === "guest" ? { domid: 7, generation: 1 } : undefined));
    assert.deepEqual(options.deviceModelFor, { domid: 7, generation: 1 });
    assert.equal(options.label, "stubdom");
    assert.throws(() => domainOptionsOf(config), { code: "DOMAIN_NOT_FOUND", message: /"guest"/ });
  });
  it("names the files of keys, which begin where it is", () => {
    const config = parse(`${least}[keys]\n"db:orders" = "orders.key"\nother = "/run/other"\n`);
    assert.deepEqual(config.keys, { "db:orders": "/etc/xl/orders.key", other: "/run/other" });
  });
  it("without memory has what maxmem says", () => {
    assert.equal(parse(`${least}maxmem = 64`).memoryBytes, 64 * MIB);
  });
});

describe("a size in a configuration", () => {
  const sizes = `
    64        67108864
    64.5      67633152
    "64"      67108864
    "64K"     65536
    "1.5GiB"  1610612736
    4096      4294967296
  `;
  for (const line of sizes.trim().split("\n")) {
    const [text, bytes] = line.trim().split(/\s+/);
    it(`${text} is ${bytes} bytes`, () => assert.equal(withMemory(text!).memoryBytes, Number(bytes)));
  }
  for (const text of ["0", "-1", "nan", "inf", "1e30", "4097", '"0"', '"-64M"', '"5G"', '"lots"', '""', '"64X"']) {
    it(`${text} is refused with its line, value and limit`, () => {
      refused(`${least}memory = ${text}\n`, [/^\/etc\/xl\/web\.toml:3: memory: size ".*" is not .*(4 GiB|KiB)/]);
    });
  }
  for (const text of ["true", "[64]", "{}", "2026-01-01"]) {
    it(`${text} is refused as being none`, () => {
      refused(`${least}memory = ${text}\n`, [/:3: memory is .*, it must be a size/]);
    });
  }
  it("0 is fine where nothing is an answer", () => {
    for (const zero of ["0", '"0"', '"0M"', "0.0"]) {
      assert.equal(parse(`${least}device_model_memory = ${zero}`).deviceModelMemoryBytes, 0);
      assert.equal(parse(`${least}secret_memory = ${zero}`).secretBytesMax, 0);
    }
  });
});

describe("secret memory", () => {
  it("is 64 KiB where nothing is said, and what is said otherwise", () => {
    assert.equal(parse(least).secretBytesMax, 64 * 1024);
    assert.equal(parse(`${least}secret_memory = "1M"`).secretBytesMax, 2 ** 20);
    assert.equal(domainOptionsOf(parse(`${least}secret_memory = "8K"`)).secretBytesMax, 8192);
  });
});

describe("sizes beside each other", () => {
  it("maxmem below memory is refused, equal is fine", () => {
    refused(`${least}memory = 64\nmaxmem = 63`, [/:4: maxmem "63" is below memory "64"/]);
    assert.equal(parse(`${least}memory = 64\nmaxmem = "64M"`).memoryBytesMax, 64 * MIB);
  });
  it("memory_min above memory is refused, equal is fine", () => {
    refused(`${least}memory_min = 257`, [/:3: memory_min "257" is above memory "256"/]);
    assert.equal(parse(`${least}memory_min = 256`).memoryBytesMin, 256 * MIB);
  });
});

describe("unknown keys are refused with what was meant", () => {
  const rows: readonly (readonly [string, RegExp])[] = [
    ["memroy", /unknown key "memroy": did you mean memory\?/],
    ["Vcpus", /did you mean vcpus\?/],
    ["on-crash", /did you mean on_crash\?/],
    ["on_crsah", /did you mean on_crash\?/],
    ["image", /did you mean kernel\?/],
    ["env", /did you mean environment\?/],
    ["disk", /xl\.cfg's disk is not used here: a guest has files: use directories/],
    ["frobnicate", /unknown key "frobnicate": known keys are name, kernel, memory/],
    ["__proto__", /unknown key "__proto__"/],
    ["constructor", /unknown key "constructor"/],
  ];
  for (const [key, message] of rows) {
    it(key, () =>
      refused(`${least}# comment\n${key} = 1\n`, [new RegExp(`^/etc/xl/web\\.toml:4: .*${message.source}`)]),
    );
  }
  it("and all of them at once, by line", () => {
    refused(`memroy = 1\nname = "web"\nkernel = "k"\nvcpu = 2\nvcpus = 0`, [
      /:1: .*memory\?/,
      /:4: .*vcpus\?/,
      /:5: vcpus is 0, it must be a whole number from 1 to 32/,
    ]);
  });
});

describe("values that are refused", () => {
  const rows: readonly (readonly [string, RegExp])[] = [
    ["vcpus = 33", /vcpus is 33, it must be a whole number from 1 to 32/],
    ["vcpus = 1.5", /vcpus is 1\.5/],
    ['vcpus = "2"', /vcpus is "2"/],
    ["vcpus = 9007199254740993", /vcpus is 9007199254740993/],
    ["weight = 0", /weight is 0, it must be a whole number from 1 to 65535/],
    ['seclabel = "a b"', /seclabel is "a b", it must be letters/],
    ['squeeze = "hard"', /squeeze is "hard", it must be "off", "zero-pages"/],
    ['on_crash = "explode"', /on_crash is "explode", it must be "destroy", "restart"/],
    ['on_crash = "coredump-restart"', /on_crash is "coredump-restart": not yet/],
    ["autostart = 1", /autostart is 1, it must be true or false/],
    ['args = "-v"', /args is "-v", it must be a list/],
    ["args = [1]", /args\[0\] is 1, it must be text/],
    ['args = ["a\\u0000b"]', /args\[0\] is "a\\u0000b", it must be text without zero bytes/],
    ['directories = ["/tmp"]', /directories\[0\] is "\/tmp", it must be HOST::GUEST/],
    ["environment = { LANG = 1 }", /environment\.LANG is 1/],
    ['environment = { "A=B" = "c" }', /environment\.A=B is "A=B", it must be a name without =/],
    [`cmdline = "${"x".repeat(1024)}"`, /cmdline is 1024 bytes long, the limit is 1023/],
    ['cmdline = "a"\nextra = "b"', /cmdline stands beside extra or root/],
  ];
  for (const [line, message] of rows) {
    it(line.slice(0, 40).replace("\n", " and "), () => {
      refused(`${least}${line}\n`, [new RegExp(`^/etc/xl/web\\.toml:3: ${message.source}`)]);
    });
  }
  for (const name of ["", "5", "a/b", "-a", "a b", "ä", "x".repeat(64)]) {
    it(`the name ${JSON.stringify(name)}`, () => {
      refused(`name = ${JSON.stringify(name)}\nkernel = "k"`, [/web\.toml:1: name is /]);
    });
  }
  it("no name and no kernel, both at once", () => refused("", [/name is missing/, /kernel is missing/]));
  it("a file that is too large", () => refused(`#${"x".repeat(65_536)}`, [/65537 bytes long, the limit is 65536/]));
  it("text that is not TOML, by line", () => refused(`${least}memory = = 3`, [/^\/etc\/xl\/web\.toml:3: /]));
  it("the same key twice", () => refused(`${least}vcpus = 1\nvcpus = 2`, [/:4: /]));
});

describe("lines of messages", () => {
  it("texts of several lines that look like keys are passed over", () => {
    refused(
      `name = "web"\nkernel = "k"\nargs = ["""\nvcpus = 77\n""", '''\nvcpus = 78\n''',\n"vcpus = 79" ]\nvcpus = 80\n`,
      [/:9: vcpus is 80/],
    );
  });
  it("keys of tables are found below their headers", () => {
    refused(`${least}[environment]\nFINE = "yes"\nBAD = 1\n`, [/:5: environment\.BAD is 1/]);
  });
  it("tables whose headers have spaces, quotes and comments are found", () => {
    refused(`${least}  [ "environment" ] # of the guest\nBAD = 1\n`, [/:4: environment\.BAD is 1/]);
  });
  it("are found below long lines of one character again and again", () => {
    for (const filler of [" ", "[", "[ ", "\\", '"', "'", ".", "a.", "a .", "#", "="]) {
      const line = filler.repeat(60_000 / filler.length);
      assert.equal(lineOf(`kernel = 1\n#${line}\nname = 2`, ["name"]), 3);
      lineOf(`${line}\n[${line}\na = ${line}\n${line} =`, ["name"]);
    }
  });
  it("dotted keys are found", () => refused(`${least}environment.BAD = 1\n`, [/:3: environment\.BAD is 1/]));
});

describe("words of a command line", () => {
  it("stand in place of what the file says", () => {
    const config = parse(`${least}memory = 64\n[environment]\nA = "1"\n`, ["memory=128", "name=db", "environment.B=2"]);
    assert.equal(config.memoryBytes, 128 * MIB);
    assert.equal(config.name, "db");
  });
  it("join tables with what the file says", () => {
    const config = parse(`${least}[environment]\nA = "1"\nB = "1"\n`, ['environment.B="2"']);
    assert.deepEqual(config.environment, { A: "1", B: "2" });
  });
  it("are TOML where they can be, else text", () => {
    const config = parse(least, ['args=["a", "b"]', "extra=quiet ro", "memory=64M", "autostart=true"]);
    assert.deepEqual(config.arguments, ["web.wasm", "a", "b"]);
    assert.equal(config.commandLine, "quiet ro");
    assert.equal(config.memoryBytes, 64 * MIB);
    assert.equal(config.autostart, true);
  });
  it("have paths that begin where xl is called", () => {
    const { kernel, directories } = parse(least, ["kernel=other.wasm", 'directories=["data::/data:ro"]']);
    assert.equal(kernel, `${process.cwd()}/other.wasm`);
    assert.deepEqual(directories, [{ host: `${process.cwd()}/data`, guest: "/data", readOnly: true }]);
    refused(least, [/directories\[0\] is "data"/, /directories\[1\] is 1/], ['directories=["data", 1]']);
  });
  for (const word of ["memory", "=1", "a b=1", ""]) {
    it(`${JSON.stringify(word)} is refused`, () => refused(least, [/is not of the form key=value/], [word]));
  }
  it("that are wrong are refused without a line of the file", () => {
    refused(`${least}vcpus = 2\n`, [/^\/etc\/xl\/web\.toml: vcpus is 0/], ["vcpus=0"]);
  });
});

describe("a configuration that was read", () => {
  it("comes to the same wherever it is read again, as its paths are absolute", () => {
    const text = `${least}memory = "64M"\ndirectories = ["data::/data:ro"]\n[keys]\na = "a.key"\n`;
    const { document, config } = readConfig(text, "/etc/xl/web.toml", ["vcpus=2", "keys.b=b.key"]);
    assert.deepEqual(document.directories, ["/etc/xl/data::/data:ro"]);
    assert.deepEqual(document.keys, { a: "/etc/xl/a.key", b: path.resolve("b.key") });
    const again = configOf(JSON.parse(JSON.stringify(document)), { label: "config", directory: "/elsewhere" });
    assert.deepEqual({ ...again, arguments: config.arguments }, config);
  });
});

describe("any text at all", () => {
  const words = [
    "name",
    "memory",
    "=",
    '"',
    "'",
    "[",
    "]",
    "{",
    "}",
    "\n",
    "#",
    ".",
    "64",
    '"""',
    "\\",
    "\0",
    "kernel",
  ];
  const fragments = fc.array(fc.constantFrom(...words)).map((each) => each.join(""));
  it("is either a configuration or refused as one", () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fragments), fc.boolean(), (text, isTail) => {
        try {
          assert.ok(parse(isTail ? `${least}${text}` : text).kernel.startsWith("/"));
        } catch (error) {
          assert.equal((error as { code?: string }).code, "CONFIG_INVALID", String(error));
        }
      }),
      { numRuns: 5000 },
    );
  });
});
