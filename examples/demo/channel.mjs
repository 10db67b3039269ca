// SPDX-License-Identifier: Apache-2.0
/** A vchan between two guests in C: its server takes the memory back while the stream runs, then is killed while it runs. */
import assert from "node:assert/strict";
import { mib } from "./report.mjs";

const MIB = 2 ** 20;
const ROUNDS = 5;
const WORDS_PER_ROUND = 4 * MIB;
/** -ENOTCONN: the channel is closed, and everything that can be delivered has been. */
const CLOSED = -107;

/** Collects what a guest prints. */
const listen = (domain) => {
  const heard = { text: "" };
  const waiting = new Set();
  const finished = (async () => {
    for await (const piece of domain.console) {
      heard.text += piece;
      for (const look of waiting) look();
    }
  })();
  /** Resolves with the match when `pattern` has been printed, or undefined when the guest ended without. */
  const printed = async (pattern) => {
    const seen = new Promise((resolve) => {
      const look = () => void (pattern.test(heard.text) && resolve());
      waiting.add(look);
      look();
    });
    await Promise.race([seen, finished]);
    return pattern.exec(heard.text) ?? undefined;
  };
  return { domain, printed };
};

/** Starts a server and a reader that know of each other. */
const startPair = async (host, image, words) => {
  const open = async (commandLine) =>
    listen(await host.createDomain({ image, commandLine, memoryBytesMax: 16 * MIB, name: commandLine.split(" ")[0] }));
  const store = await host.xenstore();
  const server = await open(`serve ${words}`);
  const reader = await open("read");
  for (const [one, other] of [
    [server, reader],
    [reader, server],
  ]) {
    await store.write(`/local/domain/${one.domain.domid}/data/peer`, String(other.domain.domid));
  }
  await reader.domain.start();
  await server.domain.start();
  return { server, reader };
};

/** What the reader says at its end, checked. */
const readerEnd = async ({ domain, printed }) => {
  const line = await printed(/got (\d+) words, (\d+) wrong, then (-?\d+)\n/);
  assert.ok(line !== undefined, "the reader ended without a word");
  const [got, wrong, error] = line.slice(1).map(Number);
  const { reason } = await domain.exited;
  assert.deepEqual({ wrong, error, reason }, { wrong: 0, error: CLOSED, reason: "poweroff" });
  await domain.destroy();
  return got;
};

const revokeUnderLoad = async (host, image) => {
  const { server, reader } = await startPair(host, image, WORDS_PER_ROUND);
  const got = await readerEnd(reader);
  const line = await server.printed(/sent (\d+) words, revoked: (-?\d+)\n/);
  assert.ok(line !== undefined, "the server ended without a word");
  const [sent, status] = line.slice(1).map(Number);
  assert.equal(status, 0);
  assert.ok(got <= sent, `${got} words came of ${sent}`);
  await server.domain.exited;
  await server.domain.destroy();
  return { sent, got };
};

/** The two ends of the channel. `image` is stream.c, compiled. */
export const runChannels = async ({ host, report }, module) => {
  const image = await host.loadImage(module);
  report.title("A vchan between two guests; the server takes its memory back while the stream runs");
  const rounds = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    const { sent, got } = await revokeUnderLoad(host, image);
    rounds.push({ sentWords: sent, gotWords: got });
    report.say(`${mib(sent * 4)} sent, the first ${mib(got * 4)} of them read in order, none wrong; then: closed`);
  }
  report.good(`the reader saw an end of the stream in order ${ROUNDS} times of ${ROUNDS}`);

  report.title("The server of a vchan is killed while the stream runs");
  const { server, reader } = await startPair(host, image, 0);
  await reader.printed(/flowing\n/);
  await server.domain.destroy();
  const got = await readerEnd(reader);
  report.good(`the reader got ${mib(got * 4)} in order, none wrong; then: closed; it ended by itself`);
  report.facts.channel = { rounds, wrongWords: 0, gotWordsBeforeKill: got };
};
