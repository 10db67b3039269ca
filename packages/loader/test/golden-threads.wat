(module
  (type (;0;) (func (result i32)))
  (type (;1;) (func (param i32)))
  (type (;2;) (func))
  (type (;3;) (func (param i32) (result i32)))
  (type (;4;) (func (param i32 i32 i32 i32) (result i32)))
  (type (;5;) (func (param i32 i32 i32 i32)))
  (type (;6;) (func (param i32)))
  (type (;7;) (func (param i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "sched_yield" (func $yield (type 0)))
  (import "wasi_snapshot_preview1" "proc_exit" (func $exit (type 1)))
  (import "xen" "memory" (memory $ram 0 65536 shared))
  (func $main (type 2)
    i32.const 0
    i32.const 0
    i32.const 12
    i32.const 0
    call $xenolith.memory.init
    i32.const 0
    call $xenolith.data.drop)
  (func $count (type 3) (param $at i32) (result i32)
    local.get $at
    i32.const 1
    i32.const 4
    call $xenolith.i32.atomic.rmw.add)
  (func $xenolith.memory.init (type 5) (param i32 i32 i32 i32)
    local.get 3
    local.get 0
    local.get 1
    local.get 2
    i32.const 5
    call_indirect 1 (type 4)
    if  ;; label = @1
      unreachable
    end)
  (func $xenolith.data.drop (type 6) (param i32)
    local.get 0
    i32.const 6
    call_indirect 1 (type 6))
  (func $xenolith.i32.atomic.rmw.add (type 7) (param i32 i32 i32) (result i32)
    (local i32 i32)
    local.get 0
    local.get 2
    i32.add
    local.tee 0
    local.get 2
    i32.lt_u
    if  ;; label = @1
      i32.const 1
      i32.load8_u offset=4294967295
      drop
      unreachable
    end
    local.get 0
    i32.atomic.load
    local.set 3
    loop  ;; label = @1
      local.get 0
      local.get 3
      local.get 3
      local.get 1
      i32.add
      i32.atomic.rmw.cmpxchg
      local.tee 4
      local.get 3
      i32.ne
      local.get 4
      local.set 3
      br_if 0 (;@1;)
    end
    local.get 3)
  (table $dispatch 2 250000 funcref)
  (table (;1;) 8 8 funcref)
  (export "xenolith.start" (func $main))
  (export "xenolith.services" (table 1))
  (export "xenolith.table.0" (table $dispatch))
  (elem (;0;) (i32.const 0) func $main $count))
