/**
 * hvm_op: the HVM parameters of a domain and a few small questions. Source: xen/include/public/hvm/hvm_op.h, params.h.
 */
import * as abi from "@xenolith/abi";
import type { Cpu, Handler } from "./cpu.ts";
import { HVM_PARAM_COUNT } from "./hvm-param-table.ts";
import { isGuestWritable, P2M_HOLE } from "./p2m.ts";
import { resolveDomain } from "./policy.ts";

const { EEXIST, EFAULT, EINVAL, ENOENT, ENOSYS, EPERM } = abi;

/** What the domain itself may do with a parameter. A device model and privileged domains may do everything. */
const SET = 1;
const GET = 2;
/** A value once set stays. */
const ONCE = 4;
/** No longer exists, for nobody. */
const GONE = 8;

const rights: Readonly<Record<number, number>> = {
  [abi.HVM_PARAM_CALLBACK_IRQ]: SET | GET,
  [abi.HVM_PARAM_STORE_PFN]: GET,
  [abi.HVM_PARAM_STORE_EVTCHN]: SET | GET,
  4: GONE,
  [abi.HVM_PARAM_IOREQ_PFN]: ONCE,
  [abi.HVM_PARAM_BUFIOREQ_PFN]: ONCE,
  [abi.HVM_PARAM_VIRIDIAN]: ONCE,
  13: GONE,
  [abi.HVM_PARAM_VM86_TSS]: SET | GET,
  [abi.HVM_PARAM_CONSOLE_PFN]: GET,
  [abi.HVM_PARAM_CONSOLE_EVTCHN]: SET | GET,
  [abi.HVM_PARAM_ACPI_IOPORTS_LOCATION]: SET | GET,
  20: GONE,
  21: GONE,
  22: GONE,
  23: GONE,
  24: GONE,
  25: GONE,
  26: GONE,
  30: GONE,
  [abi.HVM_PARAM_IOREQ_SERVER_PFN]: ONCE,
  [abi.HVM_PARAM_NR_IOREQ_SERVER_PAGES]: ONCE,
  [abi.HVM_PARAM_VM_GENERATION_ID_ADDR]: SET | GET,
  [abi.HVM_PARAM_ALTP2M]: GET,
  [abi.HVM_PARAM_X87_FIP_WIDTH]: SET | GET,
  [abi.HVM_PARAM_VM86_TSS_SIZED]: SET | GET,
  [abi.HVM_PARAM_MCA_CAP]: ONCE,
};
const rightsOf = Uint8Array.from({ length: HVM_PARAM_COUNT }, (_, index) => rights[index] ?? 0);

/** Vectors below this belong to exceptions. */
const VECTOR_MIN = 16;
const MEM_TYPE_RAM = 0;
const MEM_TYPE_RAM_RO = 1;
const MEM_TYPE_ABSENT = 2;
/** xen_hvm_get_mem_type: {domid u16, out mem_type u16, pad u32, pfn u64}. */
const xen_hvm_get_mem_type = abi.struct("xen_hvm_get_mem_type", 16, {
  domid: abi.u16,
  mem_type: abi.u16,
  pad: abi.u32,
  pfn: abi.u64n,
});

/** hvm_op(command, arg). */
export const hvmOp: Handler = (cpu, command, arg) => {
  switch (command) {
    case abi.HVMOP_set_param:
      return accessParam(cpu, arg, setParam);
    case abi.HVMOP_get_param:
      return accessParam(cpu, arg, getParam);
    case abi.HVMOP_flush_tlbs:
      return arg === 0 ? 0 : -EINVAL;
    case abi.HVMOP_get_time:
      return getTime(cpu, arg);
    case abi.HVMOP_get_mem_type:
      return getMemType(cpu, arg);
    case abi.HVMOP_set_evtchn_upcall_vector:
      return setUpcallVector(cpu, arg);
    default:
      return -ENOSYS;
  }
};

/** A parameter that the caller may name, as the operation on it sees it. */
interface ParamAccess {
  readonly slot: number;
  readonly index: number;
  /** The domain acts on itself. */
  readonly isOwn: boolean;
  readonly low: number;
  readonly high: number;
}

/** Checks everything that set and get have in common. -EINVAL: no such parameter, -ESRCH, -EPERM, -EFAULT. */
const accessParam = (
  cpu: Cpu,
  arg: number,
  operation: (cpu: Cpu, arg: number, param: ParamAccess) => number,
): number => {
  const { memory } = cpu;
  const param = abi.xen_hvm_param;
  if (!memory.fetch(arg, param.sizeBytes)) return -EFAULT;
  const domid = param.domid.get(memory.scratch, 0);
  const index = param.index.get(memory.scratch, 0);
  const low = param.value.low.get(memory.scratch, 0);
  const high = param.value.high.get(memory.scratch, 0);
  if (index >= HVM_PARAM_COUNT) return -EINVAL;
  const slot = resolveDomain(cpu, domid, "TARGET");
  if (slot < 0) return slot;
  if ((rightsOf[index]! & GONE) !== 0) return -EINVAL;
  return operation(cpu, arg, { slot, index, isOwn: slot === cpu.slot, low, high });
};

const setParam = (cpu: Cpu, _arg: number, param: ParamAccess): number => {
  const { hvmParams, locks } = cpu.hypervisor;
  if (param.index === abi.HVM_PARAM_ALTP2M) return -EEXIST;
  const right = rightsOf[param.index]!;
  if (param.isOwn && (right & SET) === 0) return -EPERM;
  const row = hvmParams.row(param.slot, param.index);
  const lock = locks.id("domain", param.slot);
  locks.acquire(lock);
  const isSet = hvmParams.low[row] !== 0 || hvmParams.high[row] !== 0;
  const isSame = hvmParams.low[row] === param.low && hvmParams.high[row] === param.high;
  const refused = (right & ONCE) !== 0 && isSet && !isSame;
  if (!refused) {
    hvmParams.low[row] = param.low;
    hvmParams.high[row] = param.high;
  }
  locks.release(lock);
  return refused ? -EEXIST : 0;
};

const getParam = (cpu: Cpu, arg: number, param: ParamAccess): number => {
  const { memory, hypervisor } = cpu;
  const { hvmParams, locks } = hypervisor;
  if (param.isOwn && (rightsOf[param.index]! & GET) === 0) return -EPERM;
  const row = hvmParams.row(param.slot, param.index);
  const lock = locks.id("domain", param.slot);
  locks.acquire(lock);
  const low = hvmParams.low[row]!;
  const high = hvmParams.high[row]!;
  locks.release(lock);
  abi.xen_hvm_param.value.low.set(memory.scratch, 0, low);
  abi.xen_hvm_param.value.high.set(memory.scratch, 0, high);
  return memory.store(arg, abi.xen_hvm_param.sizeBytes) ? 0 : -EFAULT;
};

const getTime = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  abi.xen_hvm_get_time.now.set(memory.scratch, 0, Math.floor(hypervisor.platform.now()));
  return memory.store(arg, abi.xen_hvm_get_time.sizeBytes) ? 0 : -EFAULT;
};

const getMemType = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  const question = xen_hvm_get_mem_type;
  if (!memory.fetch(arg, question.sizeBytes)) return -EFAULT;
  const slot = resolveDomain(cpu, question.domid.get(memory.scratch, 0), "TARGET");
  if (slot < 0) return slot;
  const entry = hypervisor.p2m.get(slot, question.pfn.get(memory.scratch, 0));
  const answer = entry === P2M_HOLE ? MEM_TYPE_ABSENT : isGuestWritable(entry) ? MEM_TYPE_RAM : MEM_TYPE_RAM_RO;
  question.mem_type.set(memory.scratch, 0, answer);
  return memory.store(arg, question.sizeBytes) ? 0 : -EFAULT;
};

/** There is no interrupt controller: upcalls come through the function that the guest exports, whatever the vector. */
const setUpcallVector = (cpu: Cpu, arg: number): number => {
  const { memory, hypervisor } = cpu;
  const request = abi.xen_hvm_evtchn_upcall_vector;
  if (!memory.fetch(arg, request.sizeBytes)) return -EFAULT;
  if (request.vector.get(memory.scratch, 0) < VECTOR_MIN) return -EINVAL;
  return request.vcpu.get(memory.scratch, 0) < hypervisor.domains.vcpuCount[cpu.slot]! ? 0 : -ENOENT;
};
