/** Random operations, each as the library and as the kernel have it. */
import type { Answer } from "../src/index.ts";
import type { Pair, Twin } from "./oracle-pair.ts";
import { anyKey, anyRing, type Context, MASKS, RINGS, RUNNER, show, spared, USERS, words } from "./oracle-choices.ts";
import type { Random } from "./random.ts";

/** One operation, ready to be done by both. */
export interface Step {
  readonly text: string;
  readonly mine: () => Answer;
  readonly kernels: () => number;
  /** Whether a result above 0 is a serial number. */
  readonly yieldsSerial: boolean;
  /** Whether it may find a key that nobody has any more. */
  readonly findsByName?: boolean;
  /** Whether the kernel goes on with it after it has answered. */
  readonly settlesLater?: boolean;
}

type Make = (context: Context) => Step;

const add: Make = (context) => {
  const { pair } = context;
  const ring = anyRing(context);
  const { type, description, payload } = words(context);
  return {
    text: `add ${type} ${description} ${payload.length} bytes to ${show(ring)}`,
    mine: () => pair.service.addKey(pair.caller, type, description, payload, ring.mine),
    kernels: () => pair.kernel.addKey(type, description, payload, ring.kernels),
    yieldsSerial: true,
  };
};

const request: Make = (context) => {
  const { pair, random, uid } = context;
  const { type, description } = words(context);
  const ring = random.chance(0.5) ? { mine: 0, kernels: 0 } : anyRing(context);
  // The kernel would start a helper: without a program it fails, and leaves a negative key.
  const callout = uid !== RUNNER && pair.startsNoHelpers && random.chance(0.3) ? "ci" : null;
  return {
    text: `request ${type} ${description} ${callout} into ${show(ring)}`,
    mine: () => pair.service.requestKey(pair.caller, type, description, callout, ring.mine),
    kernels: () => pair.kernel.requestKey(type, description, callout, ring.kernels),
    yieldsSerial: true,
  };
};

const search: Make = (context) => {
  const { pair, random } = context;
  const { type, description } = words(context);
  const ring = anyRing(context);
  const into = random.chance(0.7) ? { mine: 0, kernels: 0 } : anyRing(context);
  return {
    text: `search ${show(ring)} for ${type} ${description} into ${show(into)}`,
    mine: () => pair.service.search(pair.caller, ring.mine, type, description, into.mine),
    kernels: () => pair.kernel.keyctlTexts(10, ring.kernels, type, description, into.kernels),
    yieldsSerial: true,
  };
};

const update: Make = (context) => {
  const { pair, random } = context;
  const key = anyKey(context);
  const payload = Buffer.alloc(random.pick([1, 9, 50, 0, 4096, 4097]), 7);
  return {
    text: `update ${show(key)} with ${payload.length} bytes`,
    mine: () => pair.service.update(pair.caller, key.mine, payload),
    kernels: () => pair.kernel.keyctlBytes(2, key.kernels, payload, payload.length),
    yieldsSerial: false,
  };
};

/** An operation on one key that takes at most a number. */
const simple =
  (
    name: string,
    choose: (context: Context) => Twin,
    does: (pair: Pair, key: Twin) => readonly [() => Answer, () => number],
    settlesLater = false,
  ): Make =>
  (context) => {
    const key = choose(context);
    const [mine, kernels] = does(context.pair, key);
    return { text: `${name} ${show(key)}`, mine, kernels, yieldsSerial: false, settlesLater };
  };

const revoke = simple(
  "revoke",
  (context) => spared(context, anyKey),
  ({ service, caller, kernel }, key) => [() => service.revoke(caller, key.mine), () => kernel.keyctl(3, key.kernels)],
);

const invalidate = simple(
  "invalidate",
  (context) => spared(context, anyKey),
  ({ service, caller, kernel }, key) => [
    () => service.invalidate(caller, key.mine),
    () => kernel.keyctl(21, key.kernels),
  ],
  true,
);

const clear = simple("clear", anyRing, ({ service, caller, kernel }, key) => [
  () => service.clear(caller, key.mine),
  () => kernel.keyctl(7, key.kernels),
]);

const assume = simple("assume", anyKey, ({ service, caller, kernel }, key) => [
  () => service.assumeAuthority(caller, key.mine),
  () => kernel.keyctl(16, key.kernels),
]);

const instantiate = simple("instantiate", anyKey, ({ service, caller, kernel }, key) => [
  () => service.instantiate(caller, key.mine, Buffer.from("x"), 0),
  () => kernel.keyctlBytes(12, key.kernels, Buffer.from("x"), 1, 0),
]);

const getId: Make = (context) => {
  const { pair, random } = context;
  const key = anyKey(context);
  const create = random.chance(0.5);
  return {
    text: `get id of ${show(key)} ${create ? "create" : ""}`,
    mine: () => pair.service.getKeyringId(pair.caller, key.mine, create),
    kernels: () => pair.kernel.keyctl(0, key.kernels, create ? 1 : 0),
    yieldsSerial: true,
  };
};

const join: Make = ({ pair, random, runName }) => {
  const name = random.chance(0.4) ? null : random.pick([`${runName}-1`, `${runName}-2`, ".hidden", "", RINGS[0]!]);
  return {
    text: `join ${name}`,
    mine: () => pair.service.joinSession(pair.caller, name),
    kernels: () => pair.kernel.join(name),
    yieldsSerial: true,
    findsByName: true,
  };
};

const chown: Make = (context) => {
  const { pair, random } = context;
  const key = spared(context, anyKey);
  const uid = random.pick([-1, -1, ...USERS]);
  const gid = random.pick([-1, -1, ...USERS]);
  return {
    text: `chown ${show(key)} ${uid} ${gid}`,
    mine: () => pair.service.chown(pair.caller, key.mine, uid, gid),
    kernels: () => pair.kernel.keyctl(4, key.kernels, uid, gid),
    yieldsSerial: false,
  };
};

const setPermissions: Make = (context) => {
  const { pair, random } = context;
  const key = spared(context, anyKey);
  const mask = random.pick(MASKS);
  return {
    text: `setperm ${show(key)} ${mask.toString(16)}`,
    mine: () => pair.service.setPermissions(pair.caller, key.mine, mask),
    kernels: () => pair.kernel.keyctl(5, key.kernels, mask),
    yieldsSerial: false,
  };
};

const link: Make = (context) => {
  const { pair } = context;
  const key = anyKey(context);
  const ring = anyRing(context);
  return {
    text: `link ${show(key)} to ${show(ring)}`,
    mine: () => pair.service.link(pair.caller, key.mine, ring.mine),
    kernels: () => pair.kernel.keyctl(8, key.kernels, ring.kernels),
    yieldsSerial: false,
  };
};

const unlink: Make = (context) => {
  const { pair } = context;
  // Of a key that is gone, the kernel may still have the remains, which no other operation sees.
  const key = anyKey({ ...context, gone: [] });
  const ring = anyRing(context);
  return {
    text: `unlink ${show(key)} from ${show(ring)}`,
    mine: () => pair.service.unlink(pair.caller, key.mine, ring.mine),
    kernels: () => pair.kernel.keyctl(9, key.kernels, ring.kernels),
    yieldsSerial: false,
  };
};

const move: Make = (context) => {
  const { pair, random } = context;
  const key = anyKey(context);
  const from = anyRing(context);
  const to = anyRing(context);
  const flags = random.pick([0, 0, 0, 0, 1, 1, 2]);
  return {
    text: `move ${show(key)} from ${show(from)} to ${show(to)} flags ${flags}`,
    mine: () => pair.service.move(pair.caller, key.mine, from.mine, to.mine, flags),
    kernels: () => pair.kernel.keyctl(30, key.kernels, from.kernels, to.kernels, flags),
    yieldsSerial: false,
  };
};

const setTimeout: Make = (context) => {
  const { pair, random } = context;
  const key = spared(context, anyKey);
  const seconds = random.pick([0, 5400, 5400, 700_000, 2 ** 32 - 1]);
  return {
    text: `timeout ${show(key)} ${seconds}`,
    mine: () => pair.service.setTimeout(pair.caller, key.mine, seconds),
    kernels: () => pair.kernel.keyctl(15, key.kernels, seconds),
    yieldsSerial: false,
  };
};

const setDefaultRing: Make = ({ pair, random, uid }) => {
  const ring = random.pick(uid === RUNNER ? [-1, 1, 2, 3, 6, 8] : [-1, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
  return {
    text: `default ring ${ring}`,
    mine: () => pair.service.setDefaultRing(pair.caller, ring),
    kernels: () => pair.kernel.keyctl(14, ring),
    yieldsSerial: false,
  };
};

const restrict: Make = (context) => {
  const { pair, random } = context;
  const ring = spared(context, anyRing);
  const type = random.pick([null, null, "user", "nonesuch", "asymmetric"]);
  const restriction = random.chance(0.2) ? "bad" : type === null ? null : "bad";
  return {
    text: `restrict ${show(ring)} ${type} ${restriction}`,
    mine: () => pair.service.restrict(pair.caller, ring.mine, type, restriction),
    kernels: () => pair.kernel.keyctlTexts(29, ring.kernels, type, restriction),
    yieldsSerial: false,
  };
};

const capacity = (random: Random): number => random.pick([0, 3, 4, 16, 64, 4096, 40_000]);

/** Reads bytes on both sides; what was copied must be the same too, unless it is serial numbers. */
const bytes =
  (name: string, op: number, mineDoes: (pair: Pair, id: number, target: Uint8Array) => Answer): Make =>
  (context) => {
    const { pair, random } = context;
    const key = anyKey(context);
    const size = capacity(random);
    const [mine, kernels] = [Buffer.alloc(size, 0xaa), Buffer.alloc(size, 0xaa)];
    return {
      text: `${name} ${show(key)} with room for ${size}`,
      mine: () => mineDoes(pair, key.mine, mine),
      kernels: () => {
        const result = pair.kernel.keyctlBytes(op, key.kernels, kernels, size);
        // What is read from a keyring is serial numbers; they are compared with all others.
        const isList = op === 11 && (key.mine < 0 || pair.isRing(key.mine));
        if (!isList && !mine.equals(kernels))
          pair.same(
            `${name} ${show(key)}`,
            mine.toString("latin1").slice(0, 60),
            kernels.toString("latin1").slice(0, 60),
          );
        return result;
      },
      yieldsSerial: false,
    };
  };

const read = bytes("read", 11, ({ service, caller }, id, target) => service.read(caller, id, target));
const describe = bytes("describe", 6, ({ service, caller }, id, target) => service.describe(caller, id, target));
const security = bytes("get security of", 17, ({ service, caller }, id, target) =>
  service.getSecurity(caller, id, target),
);

/** A key that is expired before the next operation. */
const expire: Make = (context) => {
  const { pair } = context;
  const key = spared(context, anyKey);
  return {
    text: `expire ${show(key)}`,
    mine: () => pair.service.setTimeout(pair.caller, key.mine, 1),
    kernels: () => {
      const result = pair.kernel.keyctl(15, key.kernels, 1);
      if (result === 0) pair.clock.pass(2);
      return result;
    },
    yieldsSerial: false,
  };
};

const getPersistent: Make = (context) => {
  const { pair, random, uid } = context;
  const ring = anyRing(context);
  // The runner's own may hold what somebody needs.
  const others = RUNNER === 0 ? USERS.slice(1) : [RUNNER + 1, RUNNER + 2];
  const wanted = random.pick(uid === RUNNER ? others : [-1, ...USERS]);
  return {
    text: `persistent keyring of ${wanted} into ${show(ring)}`,
    mine: () => pair.service.getPersistent(pair.caller, wanted, ring.mine),
    kernels: () => pair.kernel.keyctl(22, wanted, ring.kernels),
    yieldsSerial: true,
  };
};

const refuse: Make = (context) => {
  const { pair, random } = context;
  const key = anyKey(context);
  const error = random.pick([0, 1, 126, 512, 4095, 5000]);
  return {
    text: `reject ${show(key)} with ${error}`,
    mine: () => pair.service.reject(pair.caller, key.mine, { seconds: 5, error, ring: 0 }),
    kernels: () => pair.kernel.keyctl(19, key.kernels, 5, error, 0),
    yieldsSerial: false,
  };
};

const WEIGHTS: readonly (readonly [number, Make])[] = [
  [18, add],
  [6, request],
  [8, search],
  [4, update],
  [1, revoke],
  [1, invalidate],
  [2, clear],
  [1, assume],
  [1, instantiate],
  [4, getId],
  [2.5, join],
  [3, chown],
  [9, setPermissions],
  [8, link],
  [6, unlink],
  [6, move],
  [2, setTimeout],
  [1, setDefaultRing],
  [0.5, restrict],
  [0.06, expire],
  [0.5, getPersistent],
  [0.5, refuse],
  [6, read],
  [5, describe],
  [1, security],
];
const TOTAL = WEIGHTS.reduce((sum, [weight]) => sum + weight, 0);

/** Some operation. */
export const randomStep = (context: Context): Step => {
  let at = (context.random.bits() / 2 ** 32) * TOTAL;
  for (const [weight, make] of WEIGHTS) {
    at -= weight;
    if (at < 0) return make(context);
  }
  return add(context);
};
