import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  formatClaims,
  formatColumns,
  formatList,
  formatMemory,
  formatState,
  formatTop,
  formatUptime,
  formatUptimes,
  formatVcpus,
} from "../src/client/format.ts";
import { formatSecrets } from "../src/client/format-secrets.ts";
import { dom0, flags, view } from "./views.ts";

const MIB = 2 ** 20;

/** Text as it stands in a test: without the first line's break and the indentation of the last line. */
const golden = (text: string): string => {
  const lines = text.split("\n").slice(1);
  const indentation = lines.pop()!.length + 2;
  return lines.map((line) => line.slice(indentation)).join("\n");
};

describe("the column State", () => {
  const rows: readonly (readonly [string, string])[] = [
    ["", "------"],
    ["r", "r-----"],
    ["b", "-b----"],
    ["bp", "-bp---"],
    ["s", "---s--"],
    ["sc", "---sc-"],
    ["d", "-----d"],
    ["rbpscd", "rbpscd"],
  ];
  for (const [letters, text] of rows) it(text, () => assert.equal(formatState(flags(letters)), text));
});

describe("xl list", () => {
  it("has the columns of Xen's xl, and sizes in whole MiB", () => {
    const crashed = view({ domid: 12, name: "web", state: flags("sc"), vcpus: 4, cpuSeconds: 0.04 });
    assert.equal(
      formatList([dom0(), view(), crashed]),
      golden(`
        Name                                        ID   Mem VCPUs     State     Time(s)
        Domain-0                                     0    64     1     r-----      100.0
        notes                                        1    64     1     -b----        1.3
        web                                         12    64     4     ---sc-        0.0
      `),
    );
  });
  it("counts what is set aside while a domain is built", () => {
    const { memory } = view();
    const built = view({ memory: { ...memory, currentBytes: 3 * MIB + 1, claimedBytes: 2 * MIB - 1 } });
    assert.equal(formatList([built]).split("\n")[1]!.split(/\s+/)[2], "5");
    assert.match(formatClaims([built]), /Claimed\n.* 1$/);
  });
  it("keeps a name that is longer than its column, and its fields apart", () => {
    const row = formatList([view({ name: "n".repeat(63) })]).split("\n")[1]!;
    assert.deepEqual(row.split(/\s+/), ["n".repeat(63), "1", "64", "1", "-b----", "1.3"]);
  });
});

describe("xl list -m", () => {
  it("shows targets, limits and the balloon, and dashes for what nobody manages", () => {
    const { memory } = view();
    const byHand = { ...memory.balloon!, isPinned: true, targetBytes: 32 * MIB, state: "again" };
    const shrinking = view({ domid: 2, name: "web", memory: { ...memory, balloon: byHand } });
    assert.equal(
      formatMemory([dom0(), view(), shrinking]),
      golden(`
        Name      ID  Mem(k)  Target(k)  Min(k)  Max(k)  Limit(k)  Peak(k)  Weight  Driver  Balloon
        Domain-0   0   65536          -       -       -    131072    98304       -  -       -
        notes      1   65536      65536   16384  131072    131072    98304     256  guest   done
        web        2   65536      32768   16384  131072    131072    98304     256  guest   again, by hand
      `),
    );
  });
});

describe("xl vcpu-list", () => {
  it("has the columns of Xen's xl", () => {
    const vcpus = [
      { vcpu: 0, online: true, running: true, blocked: false, cpuSeconds: 12.34 },
      { vcpu: 1, online: true, running: false, blocked: true, cpuSeconds: 0 },
      { vcpu: 2, online: false, running: false, blocked: false, cpuSeconds: 0 },
    ];
    assert.equal(
      formatVcpus([{ domid: 1, name: "notes", vcpus }]),
      golden(`
        Name                                ID  VCPU   CPU State   Time(s) Affinity (Hard / Soft)
        notes                                1     0     -   r--      12.3 all / all
        notes                                1     1     -   -b-       0.0 all / all
        notes                                1     2     -   --p       0.0 all / all
      `),
    );
  });
});

describe("xl uptime", () => {
  const rows: readonly (readonly [number, string])[] = [
    [0, "0:00:00"],
    [59.9, "0:00:59"],
    [3661, "1:01:01"],
    [86_399, "23:59:59"],
    [86_400, "1 day,  0:00:00"],
    [273_906, "3 days,  4:05:06"],
  ];
  for (const [seconds, text] of rows) it(`${seconds} s is ${text}`, () => assert.equal(formatUptime(seconds), text));
  it("has the columns of Xen's xl", () => {
    assert.equal(
      formatUptimes([view()]),
      golden(`
        Name                                ID Uptime
        notes                                1 1:01:01
      `),
    );
  });
});

describe("xl top", () => {
  it("knows no rates at the first look", () => {
    assert.equal(
      formatTop({ domains: [view()], memoryBytes: 1024 * MIB, seconds: 0 }),
      golden(`
         NAME  STATE   CPU(sec)  CPU(%)  MEM(k)  MEM(%)  MAXMEM(k)  MAXMEM(%)  VCPUS  HCALLS/s
        notes  -b----         1       -   65536     6.3     131072       12.5      1         -
      `),
    );
  });
  it("has the busiest domain first, and rates between two looks", () => {
    const before = [dom0(), view()];
    const after = [dom0(), view({ cpuSeconds: 3.25, hypercalls: 1500 })];
    assert.equal(
      formatTop({ domains: after, memoryBytes: 1024 * MIB, before, seconds: 2 }),
      golden(`
            NAME  STATE   CPU(sec)  CPU(%)  MEM(k)  MEM(%)  MAXMEM(k)  MAXMEM(%)  VCPUS  HCALLS/s
           notes  -b----         3   100.0   65536     6.3     131072       12.5      1       250
        Domain-0  r-----       100     0.0   65536     6.3     131072       12.5      1         0
      `),
    );
  });
  it("does not compare a domain with one that had its domid before", () => {
    const text = formatTop({ domains: [view({ generation: 12 })], memoryBytes: MIB, before: [view()], seconds: 1 });
    assert.match(text, /-b---- +1 +- /);
  });
});

describe("a table", () => {
  it("of no rows is its header", () => assert.equal(formatColumns(["<Name", "ID"], []), "Name  ID"));
});

describe("xl secrets", () => {
  const pool = {
    hidden: true,
    ceilingBytes: 64 * MIB,
    lockedBytes: 2.5 * MIB,
    lockedBytesHigh: 4 * MIB,
    chunkBytes: 2 * MIB,
    chunks: 1,
    freeBytes: MIB,
    regionBytes: 0.5 * MIB,
    mappedBytes: 0.25 * MIB,
    usedBytes: 640,
    slots: 10,
    degradedSlots: 0,
    growths: 2,
    shrinks: 1,
    overruns: 0,
    refusals: [
      { code: "SECRET_QUOTA", count: 3 },
      { code: "SECRET_MEMLOCK", count: 1 },
    ],
    owners: [
      { path: "domain:5", bytes: 4096, mappedBytes: 4096, slots: 1, chunks: 0, bytesHigh: 8192, refusals: 3 },
      { path: "keys:uid:0", bytes: 576, mappedBytes: 0, slots: 9, chunks: 1, bytesHigh: 576, refusals: 0 },
    ],
  };
  const directMap = { smallBytes: 422 * MIB, largeBytes: 8794 * MIB, hugeBytes: 0, largeSplits: 201 };

  it("says what there is, what was refused, and who has what", () => {
    assert.equal(
      formatSecrets({ pool, directMap }),
      golden(`
        memory      hidden: the kernel itself cannot read it
        locked      2.5 MiB of 64.0 MiB (most so far 4.0 MiB)
        chunks      1 of 2.0 MiB, 1.0 MiB free
        regions     0.5 MiB, mapped elsewhere too 0.3 MiB
        slots       10, of them degraded 0
        growths     2, shrinks 1, overruns 0
        refusals    SECRET_QUOTA 3, SECRET_MEMLOCK 1
        direct map  4k 422.0 MiB, 2M 8794.0 MiB, 1G 0.0 MiB
        splits      2M 201, 1G -

        Owner       Mem(k)  Slots  Chunks  Peak(k)  Refused
        domain:5       4.0      1       0      8.0        3
        keys:uid:0     0.6      9       1      0.6        0
      `),
    );
  });

  it("is loud about memory that the kernel reads", () => {
    const text = formatSecrets({ pool: { ...pool, hidden: false, degradedSlots: 10, refusals: [], owners: [] } });
    assert.match(text, /^memory +DEGRADED: locked in RAM, but the kernel reads it$/m);
    assert.match(text, /^slots +10, of them degraded 10$/m);
    assert.match(text, /^refusals +none$/m);
    assert.doesNotMatch(text, /Owner|direct map/);
  });

  it("is one line as long as nobody wanted any", () => {
    assert.equal(formatSecrets({}), "memory      none: nobody has wanted secret memory yet");
  });
});
