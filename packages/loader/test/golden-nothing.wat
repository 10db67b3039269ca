(module
  (type (;0;) (func (param i32) (result i32)))
  (func $untouched (type 0) (param i32) (result i32)
    local.get 0
    i32.const 1
    i32.add)
  (export "f" (func $untouched)))
