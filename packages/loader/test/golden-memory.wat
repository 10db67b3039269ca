(module $named
  (type (;0;) (func (result i32)))
  (type (;1;) (func (param i32) (result i32)))
  (type (;2;) (func (result i32)))
  (type (;3;) (func (param i32) (result i32)))
  (import "xen" "memory" (memory $ram 0 65536 shared))
  (func $size (type 0) (result i32)
    call $xenolith.memory.size)
  (func $grow (type 1) (param $delta i32) (result i32)
    local.get $delta
    call $xenolith.memory.grow)
  (func $xenolith.memory.size (type 2) (result i32)
    i32.const 0
    call_indirect (type 2))
  (func $xenolith.memory.grow (type 3) (param i32) (result i32)
    local.get 0
    i32.const 1
    call_indirect (type 3))
  (table (;0;) 8 8 funcref)
  (global $stack (mut i32) (i32.const 1024))
  (global $constant i32 (i32.const 7))
  (export "memory" (memory $ram))
  (export "xenolith.services" (table 0))
  (export "xenolith.global.0" (global $stack)))
