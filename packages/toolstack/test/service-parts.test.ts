import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type DomainConfig } from "../src/config/index.ts";
import { CONSOLE_BYTES_KEPT, ConsoleLog, FOLLOWER_COUNT_MAX } from "../src/daemon/console-log.ts";
import { EventLog, EVENTS_KEPT_MAX, QUEUE_LENGTH_MAX, READER_COUNT_MAX } from "../src/daemon/event-log.ts";
import {
  actionFor,
  countRestart,
  HEALTHY_RUN_MS,
  RESTART_DELAY_MS_MAX,
  restartDelayMs,
} from "../src/daemon/restart-policy.ts";

const told = (count: number): EventLog => {
  const log = new EventLog(() => 0);
  for (let index = 0; index < count; index += 1) log.tell({ type: "domain-created", domid: index });
  return log;
};

describe("the event log", () => {
  it("a reader gets what happens from now on, in order", async () => {
    const log = told(3);
    const reader = log.read();
    log.tell({ type: "domain-paused", domid: 7 });
    assert.deepEqual(await reader.next(), { id: 4, timeMs: 0, type: "domain-paused", domid: 7 });
    reader.close();
    assert.equal(await reader.next(), undefined);
  });
  it("a reader that comes back goes on behind the event that it saw last", async () => {
    const reader = told(5).read(3);
    assert.deepEqual([(await reader.next())?.id, (await reader.next())?.id], [4, 5]);
    reader.close();
  });
  it("a reader that comes back too late is told how much is missing", async () => {
    const reader = told(3 * EVENTS_KEPT_MAX).read(1);
    const [lost, next] = [await reader.next(), await reader.next()];
    assert.equal(lost?.type, "lost");
    assert.equal(next?.id, 1 + (lost.count ?? 0) + 1);
    reader.close();
  });
  it("a reader that does not read loses the oldest events, and is told how many", async () => {
    const log = new EventLog(() => 0);
    const reader = log.read();
    for (let index = 0; index < QUEUE_LENGTH_MAX + 10; index += 1) log.tell({ type: "domain-created" });
    assert.deepEqual(await reader.next(), { id: 10, timeMs: 0, type: "lost", count: 10 });
    assert.equal((await reader.next())?.id, 11);
    reader.close();
  });
  it("a number that no event has yet begins at now", async () => {
    const log = told(2);
    const reader = log.read(99);
    log.tell({ type: "domain-created" });
    assert.equal((await reader.next())?.id, 3);
    reader.close();
  });
  it("has as many readers as it may have; one that closed makes room", () => {
    const log = new EventLog();
    const readers = Array.from({ length: READER_COUNT_MAX }, () => log.read());
    assert.throws(() => log.read(), { code: "CLIENT_LIMIT" });
    readers[0]!.close();
    log.read();
    log.close();
    assert.equal(log.readerCount, 0);
  });
});

describe("a console's log", () => {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
  const text = (piece: Uint8Array | undefined): string => new TextDecoder().decode(piece);
  it("keeps the last 64 KiB", () => {
    const log = new ConsoleLog();
    log.print(bytes("first"));
    for (let index = 0; index < 70; index += 1) log.print(bytes(String(index % 10).repeat(1000)));
    const kept = text(log.text());
    assert.equal(kept.length, CONSOLE_BYTES_KEPT);
    assert.ok(kept.endsWith("9".repeat(1000)));
  });
  it("a follower that does not read loses the oldest bytes only", async () => {
    const log = new ConsoleLog();
    const follower = log.follow();
    for (let index = 0; index < 100; index += 1) log.print(bytes(String(index % 10).repeat(1000)));
    assert.equal((await follower.next())!.length, CONSOLE_BYTES_KEPT);
    log.print(bytes("now"));
    assert.equal(text(await follower.next()), "now");
    log.close();
    assert.equal(await follower.next(), undefined);
  });
  it("has as many followers as it may have; one that closed makes room", () => {
    const log = new ConsoleLog();
    const followers = Array.from({ length: FOLLOWER_COUNT_MAX }, () => log.follow());
    assert.throws(() => log.follow(), { code: "CLIENT_LIMIT" });
    followers[0]!.close();
    log.follow();
  });
  it("what is typed where nobody reads is refused", () => {
    assert.throws(() => new ConsoleLog().type(bytes("x")), { code: "DOMAIN_STATE" });
  });
});

describe("restarts", () => {
  it("the first comes at once, the next wait twice as long each, and none longer than a minute", () => {
    const delays = [1, 2, 3, 4, 5].map(restartDelayMs);
    assert.deepEqual(delays, [0, 500, 1000, 2000, 4000]);
    assert.equal(restartDelayMs(1000), RESTART_DELAY_MS_MAX);
  });
  it("a run that lasted ends a loop", () => {
    assert.equal(countRestart(7, HEALTHY_RUN_MS), 1);
    assert.equal(countRestart(7, HEALTHY_RUN_MS - 1), 8);
  });
  it("each end has its own action", () => {
    const config = {
      onPoweroff: "preserve",
      onReboot: "restart",
      onCrash: "rename-restart",
      onWatchdog: "destroy",
    } as unknown as DomainConfig;
    const ended = (reason: string, crashed: boolean): string =>
      actionFor(config, { code: 0, reason, crashed, where: undefined });
    assert.equal(ended("exit", false), "preserve");
    assert.equal(ended("poweroff", false), "preserve");
    assert.equal(ended("reboot", false), "restart");
    assert.equal(ended("unreachable", true), "rename-restart");
    assert.equal(ended("watchdog", true), "destroy");
  });
});
