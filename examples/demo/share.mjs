// SPDX-License-Identifier: Apache-2.0
/**
 * One data set in 16 untrusted guests: loaded once, searched by all at once, taken from one of them while it searches; then
 * a guest that shares memory of its own is killed while the others read it.
 */
import assert from "node:assert/strict";
import { availableMemory, residentMemory } from "./process-figures.mjs";
import { mib } from "./report.mjs";
import { assembleSearcher, BLOCK_BYTES, expectedCounts, openSearcher, until, wholeBlocks } from "./searcher.mjs";

const MIB = 2 ** 20;
const DATA_BYTES = 64 * MIB;
const GRANTER_BYTES = 4 * MIB;
const GUEST_COUNT = 16;
/** The guest from which the data is taken. */
const VICTIM = 7;
/** More passes than a search can make in the demo's time; it ends when it meets zeros. */
const UNTIL_ZEROS = 1_000_000;

const WORDS = Array.from({ length: GUEST_COUNT }, (_, index) => `needle-${String.fromCodePoint(97 + index)}`);

/** Lines of text without a zero byte, and the words at places that follow from `seed`. */
const fillData = (bytes, seed) => {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  text.fill("2031-05-17 08:15:42 GET /shelf/0042/item/0007 200 1532 bytes in 12 ms\n");
  let state = seed;
  for (let at = 0; at < bytes.length - 16; at += 16 + (state >>> 20)) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    text.write(WORDS[(state >>> 4) % GUEST_COUNT], at);
  }
};

const total = (counts) => counts.reduce((sum, { found }) => sum + found, 0);

/** All guests search the same pages at once. */
const searchTogether = async ({ report }, guests, share, expected) => {
  report.title(`${GUEST_COUNT} untrusted guests search it in parallel, each for a word of its own`);
  const found = await Promise.all(
    guests.map(({ domain, search }) => search(share.addressIn(domain), share.lengthBytes)),
  );
  assert.deepEqual(found, expected);
  report.good(`all right: ${found.map(total).join(", ")} places`);
  return found.map(total);
};

/** The same data once in each guest, to have something to compare with. */
const measureCopies = ({ host }, guests, data, before) => {
  if (availableMemory() < 2 * GUEST_COUNT * DATA_BYTES) return undefined;
  const copies = guests.map(({ domain }) => {
    const copy = host.share(data);
    copy.mapInto(domain, { access: "read-only" });
    return copy;
  });
  const resident = residentMemory().shared - before;
  for (const [index, copy] of copies.entries()) {
    copy.close();
    copy.unmap(guests[index].domain);
  }
  return resident;
};

const compareMemory = (stage, guests, share, before) => {
  const { report } = stage;
  const { shared, mapped, total: process } = residentMemory();
  const resident = shared - before;
  const copies = measureCopies(stage, guests, share.bytes, shared);
  report.title("What that takes (from /proc, each page once)");
  report.say(
    `one data set in ${GUEST_COUNT} guests   ${mib(resident)} resident; the whole process has ${mib(process)}`,
  );
  report.say(`a count per mapping would say ${mib(mapped)}`);
  if (copies === undefined) report.say("a copy for each guest: not measured, this machine has no memory for that");
  else
    report.good(`a copy for each guest      ${mib(copies)} resident: ${(copies / resident).toFixed(1)} times as much`);
  return { dataBytes: share.lengthBytes, residentBytes: resident, copiesResidentBytes: copies ?? null };
};

/** One guest loses the data in the middle of its search; the others do not notice. */
const revokeFromOne = async ({ report }, guests, share, expected) => {
  const victim = guests[VICTIM];
  const others = guests.filter((guest) => guest !== victim);
  const lost = [];
  share.events.on("revoked", (loss) => lost.push(loss.domain));
  report.title(`The data is taken from guest ${VICTIM} while it searches`);
  const address = share.addressIn(victim.domain);
  const searching = victim.search(address, share.lengthBytes, UNTIL_ZEROS);
  let atWork = others.length;
  const results = others.map(async ({ domain, search }) => {
    const counts = await search(share.addressIn(domain), share.lengthBytes, 3);
    atWork -= 1;
    return counts;
  });
  await until(() => victim.blocksDone() >= 8);
  share.revoke(victim.domain);
  const othersAtWork = atWork;
  const blocks = wholeBlocks(await searching, expected[VICTIM]);
  const passes = victim.blocksDone() / (share.lengthBytes / BLOCK_BYTES);
  const word = await victim.read(address);
  assert.equal(word, 0n);
  assert.deepEqual(lost, [victim.domain]);
  report.good(
    `guest ${VICTIM}, in pass ${passes} over it, saw ${blocks} of ${mib(share.lengthBytes)}, then zeros; it reads ${word} there now, and runs on`,
  );
  assert.deepEqual(
    await Promise.all(results),
    expected.filter((_, index) => index !== VICTIM),
  );
  report.good(`the other ${others.length} found everything (${othersAtWork} of them were searching at that moment)`);
  return { passes, blocksSeen: blocks, wordAfter: Number(word), othersRight: others.length };
};

/** A guest shares its own memory with the others and dies while they read it. */
const killGranter = async ({ host, report }, guests, image) => {
  report.title(
    `A guest shares ${mib(GRANTER_BYTES)} of its own memory with the ${GUEST_COUNT}, and is killed while they search it`,
  );
  const granter = await host.createDomain({ name: "granter", image, memoryBytesMax: 2 * GRANTER_BYTES });
  const address = await granter.start().then(() => granter.call("grow", GRANTER_BYTES / 65_536));
  const own = new Uint8Array(GRANTER_BYTES);
  fillData(own, 7);
  granter.write(address, own);
  const share = host.shareFrom(granter, address, GRANTER_BYTES);
  const expected = guests.map(({ word }) => expectedCounts(own, word));
  const searchAll = (passes) =>
    guests.map(({ domain, search }) => search(share.addressIn(domain), GRANTER_BYTES, passes));
  for (const { domain } of guests) share.mapInto(domain, { access: "read-only" });
  assert.deepEqual(await Promise.all(searchAll(1)), expected);
  const results = searchAll(UNTIL_ZEROS);
  await until(() => guests.every(({ blocksDone }) => blocksDone() > GRANTER_BYTES / BLOCK_BYTES));
  await granter.destroy();
  const found = await Promise.all(results);
  for (const [index, counts] of found.entries()) wholeBlocks(counts, expected[index]);
  const alive = guests.filter(({ domain }) => domain.state !== "dead" && host.domain(domain.domid) === domain).length;
  assert.ok(share.closed);
  assert.equal(alive, GUEST_COUNT);
  report.good(`the granter is gone; all ${alive} guests saw its data, then zeros, and are alive`);
  for (const { domain } of guests) share.unmap(domain);
  return { mappers: GUEST_COUNT, mappersAlive: alive };
};

/** Sharing, taking back, and the death of the one who shares. */
export const runShares = async (stage) => {
  const { host, report } = stage;
  const image = await host.loadImage(await assembleSearcher());
  const guests = [];
  for (const [index, word] of WORDS.entries())
    guests.push(await openSearcher(host, image, { name: `search-${index}`, word }));
  const before = residentMemory().shared;
  report.title(`A data set of ${mib(DATA_BYTES)}, loaded once`);
  const share = host.share(DATA_BYTES);
  fillData(share.bytes, 2031);
  const expected = guests.map(({ word }) => expectedCounts(share.bytes, word));
  const times = guests.map(({ domain }) => {
    const begin = performance.now();
    share.mapInto(domain, { access: "read-only" });
    return Math.round((performance.now() - begin) * 1000);
  });
  report.say(`mapped into ${GUEST_COUNT} guests, read-only, in ${times.join(", ")} microseconds`);

  const found = await searchTogether(stage, guests, share, expected);
  report.facts.share = { guests: GUEST_COUNT, found, ...compareMemory(stage, guests, share, before) };
  report.facts.revoke = await revokeFromOne(stage, guests, share, expected);
  report.facts.granter = await killGranter(stage, guests, image);
  share.close();
  for (const { domain } of guests) await domain.destroy();
};
