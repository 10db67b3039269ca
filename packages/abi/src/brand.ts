declare const brand: unique symbol;

/** A number that names one kind of thing, so that two kinds do not mix by accident. Costs nothing at run time. */
export type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** A domain's number. Real domains are below 0x7FF0; see the `DOMID_*` constants for the others. */
export type Domid = Brand<number, "domid">;
/** Guest frame number: a 4 KiB page index in one domain's own linear memory (address >> 12). */
export type Gfn = Brand<number, "gfn">;
/** Machine frame number: a 4 KiB page index in the memory that all domains share. */
export type Mfn = Brand<number, "mfn">;
/** An event channel of one domain. 0 is never a channel. */
export type Port = Brand<number, "port">;
/** A virtual CPU's index within its domain. */
export type VcpuId = Brand<number, "vcpu">;
/** A physical interrupt's number, as one domain sees it. 0 is valid. */
export type Pirq = Brand<number, "pirq">;
/** A virtual interrupt: one of the `VIRQ_*` constants. */
export type Virq = Brand<number, "virq">;
/** Grant reference: an index into the granter's table, which others can use. */
export type GrantRef = Brand<number, "gref">;
/** Map handle: an index into the mapper's own maptrack. 0 is valid. */
export type MapHandle = Brand<number, "handle">;

/** Makes a domain id of a number. */
export const domid = (n: number): Domid => n as Domid;
/** Makes a guest frame number of a number. */
export const gfn = (n: number): Gfn => n as Gfn;
/** Makes a machine frame number of a number. */
export const mfn = (n: number): Mfn => n as Mfn;
/** Makes an event channel port of a number. */
export const port = (n: number): Port => n as Port;
/** Makes the id of a vCPU of a number. */
export const vcpuId = (n: number): VcpuId => n as VcpuId;
/** Makes the number of a physical interrupt of a number. */
export const pirq = (n: number): Pirq => n as Pirq;
/** Makes the number of a virtual interrupt of a number. */
export const virq = (n: number): Virq => n as Virq;
/** Makes a grant reference of a number. */
export const grantRef = (n: number): GrantRef => n as GrantRef;
/** Makes a map handle of a number. */
export const mapHandle = (n: number): MapHandle => n as MapHandle;
