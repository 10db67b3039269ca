/**
 * The control domain's part of the random campaign: it shares, maps, copies, opens channels and takes everything back
 * again, with guests that break every rule at the other end. What it asks for may be refused in any way that the library
 * documents; anything else is a finding.
 */
import { setTimeout as delay } from "node:timers/promises";
import { XenolithError } from "@xenolith/abi";
import type { Domain, GrantedPages, Host, MappedGrants, Share, Vchan } from "@xenolith/host";
import { CampaignActions } from "./campaign-actions.ts";
import { Dice } from "./campaign-random.ts";

const PAGE = 4096;
/** As in campaign-guest.c. */
const ARENA = 0x8000_0000;
const ARENA_PAGES = 64;
const REFS = 48;
/** Channels that a guest offers. */
const CHANNELS = 4;
const FIRST_CHANNEL_REF = 40;
/** The ports of the xenstore, the console and one more come before. */
const FIRST_CHANNEL_PORT = 4;
/** Objects that are open at a time, of each kind. */
const OPEN_MAX = 12;

interface Opened {
  readonly shares: Share[];
  readonly mapped: MappedGrants[];
  readonly granted: GrantedPages[];
  readonly channels: Vchan[];
}

/** The control domain of one campaign. */
export class CampaignDom0 {
  readonly #host: Host;
  readonly #dice: Dice;
  readonly #actions: CampaignActions;
  readonly #open: Opened = { shares: [], mapped: [], granted: [], channels: [] };
  /** What was done, by name; for the report. */
  readonly counts: Record<string, number> = {};

  constructor(host: Host, random: () => number, findings: string[]) {
    this.#host = host;
    this.#dice = new Dice(random);
    const refusal = (error: unknown): string | undefined => (isRefusal(error) ? "refused" : undefined);
    this.#actions = new CampaignActions({ findings, counts: this.counts, refusal });
  }

  /** Acts until `isOver`. */
  async play(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      for (let left = this.#dice.below(6); left > 0; left -= 1) this.#act();
      await delay(this.#dice.below(2));
    }
  }

  /** Waits for what is pending and gives everything back. The guests are gone. */
  async close(): Promise<void> {
    const { shares, mapped, granted, channels } = this.#open;
    await this.#actions.settled();
    for (const channel of channels) await channel.close();
    for (const grants of mapped) grants.unmap();
    for (const share of shares) share.close();
    for (const grants of granted) void grants.end();
  }

  #act(): void {
    const actions: readonly (readonly [string, (domain: Domain) => unknown])[] = [
      ["share", (domain) => this.#share(domain)],
      ["mapShare", (domain) => this.#mapShare(domain)],
      [
        "revokeShare",
        (domain) => this.#dice.pick(this.#open.shares)?.revoke(this.#dice.below(2) === 0 ? domain : undefined),
      ],
      ["unmapShare", (domain) => this.#dice.pick(this.#open.shares)?.unmap(domain)],
      ["map", (domain) => this.#map(domain)],
      ["map", (domain) => this.#map(domain)],
      ["use", () => this.#use()],
      ["unmap", () => this.#dice.pick(this.#open.mapped)?.unmap()],
      ["grant", (domain) => this.#grant(domain)],
      ["grant", (domain) => this.#grant(domain)],
      ["revoke", () => this.#revoke()],
      ["end", () => void this.#dice.take(this.#open.granted)?.end()],
      ["copy", (domain) => this.#copy(domain)],
      ["notify", () => this.#notify()],
      ["serve", (domain) => this.#serve(domain)],
      ["connect", (domain) => this.#connect(domain)],
      ["talk", () => this.#talk()],
      ["talk", () => this.#talk()],
      ["hangUp", () => this.#dice.take(this.#open.channels)?.close()],
      ["store", (domain) => this.#useStore(domain)],
    ];
    const { domains } = this.#host;
    const running = domains.filter(({ state }) => state === "running");
    // Those that are not started yet, or are going, now and then.
    const domain = this.#dice.pick(running.length === 0 || this.#dice.below(8) === 0 ? domains : running);
    if (domain === undefined) return;
    const [name, action] = this.#dice.pick(actions)!;
    this.#actions.do(name, () => action(domain));
  }

  #share(domain: Domain): void {
    const { shares } = this.#open;
    if (shares.length >= OPEN_MAX) this.#dice.take(shares)?.close();
    const pages = 1 + this.#dice.below(16);
    const share =
      this.#dice.below(3) === 0
        ? this.#host.shareFrom(domain, this.#arenaPage(pages), pages * PAGE)
        : this.#host.share(pages * PAGE);
    shares.push(share);
  }

  #mapShare(domain: Domain): void {
    const access = this.#dice.below(2) === 0 ? "read-only" : "read-write";
    const address = this.#dice.below(4) === 0 ? { address: this.#arenaPage(1) } : {};
    this.#dice.pick(this.#open.shares)?.mapInto(domain, { access, ...address });
  }

  #map(domain: Domain): void {
    const { mapped } = this.#open;
    if (mapped.length >= OPEN_MAX) this.#dice.take(mapped)?.unmap();
    const { grants } = this.#host;
    // Few of the guest's entries are for the control domain, and only some of them permit what is asked for.
    for (let left = 20; left > 0; left -= 1) {
      const first = this.#dice.below(REFS);
      const options = {
        readOnly: this.#dice.below(2) === 0,
        revokable: this.#dice.below(2) === 0,
        device: ([false, true, "only"] as const)[this.#dice.below(3)]!,
      };
      try {
        mapped.push(grants.map(domain.domid, this.#dice.below(8) === 0 ? [first, first, first + 1] : [first], options));
        return;
      } catch (error) {
        if (left === 1) throw error;
        if (!isRefusal(error)) throw error;
      }
    }
  }

  #grant(domain: Domain): void {
    const { granted } = this.#open;
    if (granted.length >= OPEN_MAX) void this.#dice.take(granted)?.end();
    granted.push(
      this.#host.grants.share(domain.domid, {
        pages: 1 + this.#dice.below(4),
        readOnly: this.#dice.below(4) === 0,
        revokable: this.#dice.below(2) === 0,
      }),
    );
  }

  /** Reads and writes what is open, gone or not. */
  #use(): void {
    const { shares, mapped, granted } = this.#open;
    for (const bytes of [
      this.#dice.pick(shares)?.bytes,
      this.#dice.pick(granted)?.bytes,
      this.#dice.pick(mapped)?.bytes,
    ]) {
      if (bytes !== undefined && bytes.length > 0) bytes[this.#dice.below(bytes.length)]! += 1;
    }
    const device = this.#dice.pick(mapped)?.deviceBytes;
    if (device !== undefined) device[this.#dice.below(device.length)]! += 1;
  }

  #revoke(): void {
    const granted = this.#dice.pick(this.#open.granted);
    granted?.revoke(this.#dice.below(2) === 0 ? undefined : granted.refs[0]);
  }

  #copy(domain: Domain): void {
    const place = { domid: domain.domid, ref: this.#dice.below(REFS), offset: this.#dice.below(PAGE + 1) };
    const bytes = new Uint8Array(this.#dice.below(PAGE));
    const other = { domid: this.#dice.pick(this.#host.domains)!.domid, ref: this.#dice.below(REFS) };
    this.#host.grants.copyEach([
      { from: place, to: bytes },
      { from: bytes, to: place },
      { from: place, to: other, lengthBytes: this.#dice.below(PAGE) },
    ]);
  }

  #notify(): void {
    const notice = { clearByte: this.#dice.below(5000), port: this.#dice.below(40) };
    if (this.#dice.below(2) === 0) this.#dice.pick(this.#open.mapped)?.unmapNotify(notice);
    else this.#dice.pick(this.#open.granted)?.notifyOnEnd(notice);
  }

  async #serve(domain: Domain): Promise<void> {
    const { channels } = this.#open;
    if (channels.length >= OPEN_MAX) return;
    const bytes = [500, 2000, 5000, 20_000];
    const offer = {
      leftBytes: this.#dice.pick(bytes)!,
      rightBytes: this.#dice.pick(bytes)!,
      revokable: this.#dice.below(2) === 0,
    };
    channels.push(
      await this.#host.vchans.serve(domain.domid, `/local/domain/${domain.domid}/vc${this.#dice.below(4)}`, offer),
    );
  }

  /** As client of what a guest has in its memory: mostly one of the channels that it offers, else what no server wrote. */
  async #connect(domain: Domain): Promise<void> {
    const { channels } = this.#open;
    if (channels.length >= OPEN_MAX) return;
    const path = `/local/domain/${domain.domid}/offer`;
    const store = await this.#host.xenstore();
    const isOffered = this.#dice.below(4) > 0;
    const channel = this.#dice.below(CHANNELS);
    await store.write(`${path}/ring-ref`, String(isOffered ? FIRST_CHANNEL_REF + channel : this.#dice.below(REFS)));
    await store.write(`${path}/event-channel`, String(isOffered ? FIRST_CHANNEL_PORT + channel : this.#dice.below(12)));
    if (this.#dice.below(isOffered ? 8 : 2) === 0)
      await store.write(`${path}/revokable`, String(1 + this.#dice.below(2)));
    else await store.rm(`${path}/revokable`).catch(() => {});
    if (!isOffered && this.#dice.below(2) === 0) this.#draft(domain);
    channels.push(await this.#host.vchans.connect(domain.domid, path, { timeoutMs: 2000 }));
  }

  /** A control page with orders that can be, so that the client goes on to the references. */
  #draft(domain: Domain): void {
    const bytes = new Uint8Array(4 * 40);
    const words = new Uint32Array(bytes.buffer);
    for (let index = 0; index < words.length; index += 1) words[index] = this.#dice.below(REFS);
    const halves = new Uint16Array(bytes.buffer);
    halves[8] = 10 + this.#dice.below(5);
    halves[9] = 11 + this.#dice.below(4);
    bytes[21] = 1;
    domain.write(this.#arenaPage(1), bytes);
  }

  /** A few bytes each way; the guest moves the indices as it likes. */
  #talk(): void {
    const channel = this.#dice.pick(this.#open.channels);
    if (channel === undefined) return;
    const into = new Uint8Array(this.#dice.below(3000));
    channel.read(into);
    channel.write(into);
    if (this.#dice.below(8) === 0 && channel.isRevokable) channel.revoke();
  }

  async #useStore(domain: Domain): Promise<void> {
    const store = await this.#host.xenstore();
    const path = `/local/domain/${domain.domid}/${this.#dice.pick(["data", "data/a", "vc", "device"])}`;
    if (this.#dice.below(3) === 0) await store.write(path, "x".repeat(this.#dice.below(100)));
    else if (this.#dice.below(2) === 0) await store.directory(path);
    else await store.rm(path);
  }

  #arenaPage(count: number): number {
    return ARENA + this.#dice.below(ARENA_PAGES - count) * PAGE;
  }
}

/** What the library documents as a refusal. */
const isRefusal = (error: unknown): boolean =>
  error instanceof XenolithError || (error instanceof Error && error.name === "XenstoreError");
