/**
 * The WebAssembly module behind atomic-words.ts, which says what each function does. What the bytes are assembled from
 * (a test does it again and compares):
 *
 *     (module
 *       (import "m" "m" (memory 0 65536 shared))
 *       (func (export "compareExchange") (param i32 i32 i32) (result i32)
 *         (i32.atomic.rmw.cmpxchg (local.get 0) (local.get 1) (local.get 2)))
 *       (func (export "exchange") (param i32 i32) (result i32)
 *         (i32.atomic.rmw.xchg (local.get 0) (local.get 1)))
 *       (func (export "and") (param i32 i32) (result i32)
 *         (i32.atomic.rmw.and (local.get 0) (local.get 1)))
 *       (func (export "load") (param i32) (result i32)
 *         (i32.atomic.load (local.get 0)))
 *       (func (export "sub") (param i32 i32) (result i32)
 *         (i32.atomic.rmw.sub (local.get 0) (local.get 1)))
 *       (func (export "copy") (param i32 i32 i32)
 *         (memory.copy (local.get 0) (local.get 1) (local.get 2)))
 *       (func (export "enter") (param $gate i32) (param $value i32) (param $first i32) (param $second i32) (result i32)
 *         (if (i32.atomic.rmw.cmpxchg (local.get $gate) (i32.const 0) (local.get $value)) (then (return (i32.const 0))))
 *         (i32.store (local.get $first) (i32.add (i32.load (local.get $first)) (i32.const 1)))
 *         (i32.store (local.get $second) (i32.add (i32.load (local.get $second)) (i32.const 1)))
 *         (i32.const 1))
 *       (func (export "setAndLook") (param $at i32) (param $bits i32) (param $other i32) (result i32) (local $found i32)
 *         (if (local.tee $found (i32.atomic.rmw.cmpxchg (local.get $at) (i32.const 0) (local.get $bits)))
 *           (then (local.set $found (i32.atomic.rmw.or (local.get $at) (local.get $bits)))))
 *         (i32.or
 *           (i32.shl (i32.ne (i32.and (local.get $found) (local.get $bits)) (i32.const 0)) (i32.const 1))
 *           (i32.ne (i32.and (i32.atomic.load (local.get $other)) (local.get $bits)) (i32.const 0))))
 *       (func (export "addRun") (param $at i32) (param $count i32) (param $delta i32) (param $least i32) (result i32)
 *         (local $done i32)
 *         (loop $next
 *           (if (i32.lt_u (local.get $done) (local.get $count))
 *             (then
 *               (if (i32.ge_s
 *                     (i32.add (i32.atomic.rmw.add (local.get $at) (local.get $delta)) (local.get $delta))
 *                     (local.get $least))
 *                 (then
 *                   (local.set $at (i32.add (local.get $at) (i32.const 4)))
 *                   (local.set $done (i32.add (local.get $done) (i32.const 1)))
 *                   (br $next))))))
 *         (local.get $done))
 *       (func (export "beginRun")
 *         (param $at i32) (param $count i32) (param $mask i32) (param $wanted i32) (param $bits i32) (result i32)
 *         (local $done i32) (local $word i32)
 *         (loop $next
 *           (if (i32.lt_u (local.get $done) (local.get $count))
 *             (then
 *               (local.set $word (i32.load (local.get $at)))
 *               (if (i32.eq (i32.and (local.get $word) (local.get $mask)) (local.get $wanted))
 *                 (then
 *                   (if (i32.eq (local.get $word)
 *                         (i32.atomic.rmw.cmpxchg
 *                           (local.get $at) (local.get $word) (i32.or (local.get $word) (local.get $bits))))
 *                     (then
 *                       (local.set $at (i32.add (local.get $at) (i32.const 8)))
 *                       (local.set $done (i32.add (local.get $done) (i32.const 1)))
 *                       (br $next))))))))
 *         (local.get $done))
 *       (func (export "endRun") (param $at i32) (param $count i32) (param $bits i32)
 *         (loop $next
 *           (if (local.get $count)
 *             (then
 *               (drop (i32.atomic.rmw.and (local.get $at) (i32.xor (local.get $bits) (i32.const -1))))
 *               (local.set $at (i32.add (local.get $at) (i32.const 8)))
 *               (local.set $count (i32.sub (local.get $count) (i32.const 1)))
 *               (br $next)))))
 *       (func (export "copyEntry")
 *         (param $at i32) (param $word i32) (param $gfn i32) (param $bits i32) (param $to i32) (param $from i32) (param $bytes i32)
 *         (result i32) (local $done i32)
 *         (if (i32.ne (local.get $word)
 *               (i32.atomic.rmw.cmpxchg (local.get $at) (local.get $word) (i32.or (local.get $word) (local.get $bits))))
 *           (then (return (i32.const 0))))
 *         (if (i32.eq (i32.load offset=4 (local.get $at)) (local.get $gfn))
 *           (then
 *             (memory.copy (local.get $to) (local.get $from) (local.get $bytes))
 *             (local.set $done (i32.const 1))))
 *         (drop (i32.atomic.rmw.and (local.get $at) (i32.xor (local.get $bits) (i32.const -1))))
 *         (local.get $done)))
 *
 * setAndLook: an rmw.or whose result is wanted is a load and a compare-and-swap, so a processor fetches a word that
 * another one has written twice. Mostly the word is 0: guessing that, it is fetched once.
 */
const HEX = [
  "0061736d0100000001350760037f7f7f017f60027f7f017f60017f017f60037f7f7f0060047f7f7f7f017f60057f7f7f7f7f017f6007",
  "7f7f7f7f7f7f7f017f020b01016d016d020300808004030d0c00010102010304000405030607760c0f636f6d7061726545786368616e",
  "676500000865786368616e6765000103616e640002046c6f6164000303737562000404636f7079000505656e74657200060a73657441",
  "6e644c6f6f6b00070661646452756e000808626567696e52756e000906656e6452756e000a09636f7079456e747279000b0a8d030c0c",
  "00200020012002fe4802000b0a0020002001fe4102000b0a0020002001fe2c02000b08002000fe1002000b0a0020002001fe2502000b",
  "0c00200020012002fc0a00000b2e00200041002001fe480200044041000f0b2002200228020041016a3602002003200328020041016a",
  "36020041010b3501017f200041002001fe4802002203044020002001fe33020021030b20032001714100474101742002fe1002002001",
  "71410047720b3201017f03402004200149044020002002fe1e020020026a20034e0440200041046a2100200441016a21040c020b0b0b",
  "20040b4601027f03402005200149044020002802002106200620027120034604402006200020062006200472fe480200460440200041",
  "086a2100200541016a21050c030b0b0b0b20050b260003402001044020002002417f73fe2c02001a200041086a2100200141016b2101",
  "0c010b0b0b4101017f2001200020012001200372fe48020047044041000f0b20002802042002460440200420052006fc0a0000410121",
  "070b20002003417f73fe2c02001a20070b",
].join("");

/** The module's bytes. */
export const wordsModule = (): Uint8Array<ArrayBuffer> => Uint8Array.from(Buffer.from(HEX, "hex"));
