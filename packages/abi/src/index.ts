export { domid, gfn, grantRef, mapHandle, mfn, pirq, port, vcpuId, virq } from "./brand.ts";
export type { Brand, Domid, Gfn, GrantRef, MapHandle, Mfn, Pirq, Port, VcpuId, Virq } from "./brand.ts";
