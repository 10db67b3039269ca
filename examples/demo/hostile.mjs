// SPDX-License-Identifier: Apache-2.0
/** Three guests that mean harm, as WebAssembly text. */

/** Takes all the memory it is given, without end; when growth is refused it tries again, for ever. */
export const GROW_WITHOUT_END = `(module
  (memory (export "memory") 1)
  (func (export "_start")
    (local $at i32)
    (loop $again
      (local.set $at (memory.grow (i32.const 1)))
      (if (i32.ne (local.get $at) (i32.const -1))
        (then (i64.store (i32.mul (local.get $at) (i32.const 65536)) (i64.const -1))))
      (br $again))))`;

/** Fills four megabytes from an address where it owns nothing: in a bare engine over such memory the process would die. */
export const FILL_ABSENT_PAGE = `(module
  (memory (export "memory") 1)
  (func $fill_what_is_not_mine (param $from i32)
    (memory.fill (local.get $from) (i32.const 0xAA) (i32.const 0x400000)))
  (func (export "_start")
    (call $fill_what_is_not_mine (i32.const 0x40000000))))`;

/** Never returns and never calls anybody. */
export const LOOP_FOR_EVER = `(module
  (memory (export "memory") 1)
  (func (export "_start") (loop $again (br $again))))`;
