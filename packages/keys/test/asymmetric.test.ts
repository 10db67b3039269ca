/** Certificates, and keyrings that take only what somebody has signed. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type Certificate, makeCertificate } from "./certificates.ts";
import { bytes, describeText, errorOf, ok, onBench, procLine, SESSION } from "./kit.ts";

const root = makeCertificate({ name: "Acme Works/root" });
const middle = makeCertificate({ name: "middle", issuer: root });
const leaf = makeCertificate({ name: "leaf", issuer: middle });
const stranger = makeCertificate({ name: "stranger" });

describe("certificates", () => {
  it(
    "are called by name and identifier, found by either, and not read",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const key = ok(service.addKey(process, "asymmetric", null, root.der, SESSION));
      const id = root.identifier.toString("hex");
      assert.equal(describeText(service, process, key), `asymmetric;1000;1000;39010000;Acme Works: root: ${id}`);
      assert.match(
        procLine(service, process, key)!,
        new RegExp(`asymmetri Acme Works: root: ${id}: X509.ec ${id.slice(-8)} \\[\\]$`),
      );
      for (const selector of [`id:${id}`, `id:${id.slice(-6)}`, `ex:${id}`, `Acme Works: root: ${id}`]) {
        assert.equal(ok(service.search(process, SESSION, "asymmetric", selector, 0)), key, selector);
      }
      assert.equal(errorOf(service.search(process, SESSION, "asymmetric", `ex:${id.slice(-6)}`, 0)), "ENOKEY");
      assert.equal(errorOf(service.read(process, key)), "EOPNOTSUPP");
      assert.equal(errorOf(service.update(process, key, root.der)), "EACCES");
    }),
  );
});

describe("a keyring restricted to what a key or keyring has signed", () => {
  const add = (certificate: Certificate) => [null, certificate.der] as const;

  it(
    "takes that, and nothing else",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const trusted = ok(service.addKey(process, "keyring", "trusted", null, SESSION));
      ok(service.addKey(process, "asymmetric", ...add(root), trusted));
      const ring = ok(service.addKey(process, "keyring", "ring", null, SESSION));
      ok(service.restrict(process, ring, "asymmetric", `key_or_keyring:${trusted}`));
      assert.equal(errorOf(service.restrict(process, ring, null, null)), "EEXIST");
      ok(service.addKey(process, "asymmetric", ...add(middle), ring));
      assert.equal(errorOf(service.addKey(process, "asymmetric", ...add(leaf), ring)), "ENOKEY");
      assert.equal(errorOf(service.addKey(process, "asymmetric", ...add(stranger), ring)), "ENOKEY");
      assert.equal(errorOf(service.addKey(process, "user", "k", bytes("v"), ring)), "EOPNOTSUPP");
      const foreign = ok(service.addKey(process, "asymmetric", ...add(stranger), SESSION));
      assert.equal(errorOf(service.link(process, foreign, ring)), "ENOKEY");
      assert.equal(errorOf(service.move(process, foreign, SESSION, ring, 0)), "ENOKEY");
    }),
  );

  it(
    "with chain also takes what those have signed that it has taken",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const anchor = ok(service.addKey(process, "asymmetric", ...add(root), SESSION));
      const ring = ok(service.addKey(process, "keyring", "ring", null, SESSION));
      ok(service.restrict(process, ring, "asymmetric", `key_or_keyring:${anchor}:chain`));
      assert.equal(errorOf(service.addKey(process, "asymmetric", ...add(leaf), ring)), "ENOKEY");
      const signer = ok(service.addKey(process, "asymmetric", ...add(middle), ring));
      ok(service.addKey(process, "asymmetric", ...add(leaf), ring));
      ok(service.clear(process, ring));
      assert.equal(errorOf(service.link(process, signer, ring)), "ENOKEY", "it is gone");
    }),
  );

  it(
    "refuses a certificate that names a signer who has not signed it: EKEYREJECTED",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const ring = ok(service.addKey(process, "keyring", "ring", null, SESSION));
      const anchor = ok(service.addKey(process, "asymmetric", ...add(root), SESSION));
      ok(service.restrict(process, ring, "asymmetric", `key_or_keyring:0x${anchor.toString(16)}`));
      const forged = makeCertificate({
        name: "forged",
        issuer: { ...stranger, name: root.name, identifier: root.identifier },
      });
      assert.equal(errorOf(service.addKey(process, "asymmetric", ...add(forged), ring)), "EKEYREJECTED");
    }),
  );

  it(
    "is refused for texts, types and keys that mean nothing, and for circles",
    onBench((bench) => {
      const { service } = bench;
      const process = bench.process();
      const [one, two] = ["one", "two"].map((name) => ok(service.addKey(process, "keyring", name, null, SESSION)));
      const cases: readonly (readonly [string | null, string | null, string])[] = [
        ["asymmetric", null, "EINVAL"],
        [null, "builtin_trusted", "EINVAL"],
        ["asymmetric", "", "EINVAL"],
        ["asymmetric", "key_or_keyring:x", "EINVAL"],
        ["asymmetric", "key_or_keyring:0", "ENOKEY"],
        ["asymmetric", "key_or_keyring:1:chains", "EINVAL"],
        ["asymmetric", "key_or_keyring:1", "ENOKEY"],
        ["user", "x", "ENOENT"],
        ["other", "x", "ENOKEY"],
      ];
      for (const [type, text, error] of cases)
        assert.equal(errorOf(service.restrict(process, one!, type, text)), error);
      ok(service.restrict(process, one!, "asymmetric", `key_or_keyring:${two!}`));
      assert.equal(errorOf(service.restrict(process, two!, "asymmetric", `key_or_keyring:${one!}`)), "EDEADLK");
      ok(service.restrict(process, two!, "asymmetric", "builtin_trusted"));
      assert.equal(errorOf(service.addKey(process, "asymmetric", ...add(root), two!)), "ENOKEY");
    }),
  );
});
