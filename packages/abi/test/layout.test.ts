import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as abi from "../src/index.ts";
import type { Layout, Shape } from "../src/index.ts";

/**
 * Sizes and offsets of the 32-bit x86 layout. One line per struct: its name, its size, then member@offset. A dotted
 * member is inside a nested struct or union, and its offset counts from the outermost one.
 */
const specification = `
multicall_entry 32: op@0 result@4 args@8
start_info 1112: magic@0 nr_pages@32 shared_info@36 flags@40 store_mfn@44 store_evtchn@48 console.domU.mfn@52
  console.domU.evtchn@56 console.dom0.info_off@52 console.dom0.info_size@56 pt_base@60 nr_pt_frames@64 mfn_list@68
  mod_start@72 mod_len@76 cmd_line@80 first_p2m_pfn@1104 nr_p2m_frames@1108
hvm_start_info 56: magic@0 version@4 flags@8 nr_modules@12 modlist_paddr@16 cmdline_paddr@24 rsdp_paddr@32
  memmap_paddr@40 memmap_entries@48 reserved@52
hvm_modlist_entry 32: paddr@0 size@8 cmdline_paddr@16 reserved@24
hvm_memmap_table_entry 24: addr@0 size@8 type@16 reserved@20
shared_info 2344: vcpu_info@0 evtchn_pending@2048 evtchn_mask@2176 wc_version@2304 wc_sec@2308 wc_nsec@2312
  arch@2316 arch.max_pfn@2316 arch.pfn_to_mfn_frame_list_list@2320 arch.nmi_reason@2324 arch.p2m_cr3@2328
  arch.p2m_vaddr@2332 arch.p2m_generation@2336 arch.wc_sec_hi@2340
vcpu_info 64: evtchn_upcall_pending@0 evtchn_upcall_mask@1 evtchn_pending_sel@4 arch.cr2@8 time@32 time.version@32
  time.tsc_timestamp@40 time.system_time@48 time.tsc_to_system_mul@56 time.tsc_shift@60 time.flags@61
vcpu_runstate_info 44: state@0 state_entry_time@4 time@12
vcpu_register_vcpu_info 16: mfn@0 offset@8 rsvd@12
vcpu_set_singleshot_timer 12: timeout_abs_ns@0 flags@8
vcpu_set_periodic_timer 8: period_ns@0
grant_entry_v1 8: flags@0 domid@2 frame@4
grant_entry_v2 16: hdr.flags@0 hdr.domid@2 full_page.frame@8 sub_page.page_off@4 sub_page.length@6 sub_page.frame@8
  transitive.trans_domid@4 transitive.gref@8
gnttab_map_grant_ref 32: host_addr@0 flags@8 ref@12 dom@16 status@18 handle@20 dev_bus_addr@24
gnttab_unmap_grant_ref 24: host_addr@0 dev_bus_addr@8 handle@16 status@20
gnttab_setup_table 16: dom@0 nr_frames@4 status@8 frame_list@12
gnttab_dump_table 4: dom@0 status@2
gnttab_transfer 16: mfn@0 domid@4 ref@8 status@12
gnttab_copy 24: source.u.ref@0 source.u.gmfn@0 source.domid@4 source.offset@6 dest.u.ref@8 dest.domid@12
  dest.offset@14 len@16 flags@18 status@20
gnttab_query_size 16: dom@0 nr_frames@4 max_nr_frames@8 status@12
gnttab_unmap_and_replace 24: host_addr@0 new_addr@8 handle@16 status@20
gnttab_set_version 4: version@0
gnttab_get_status_frames 12: nr_frames@0 dom@4 status@6 frame_list@8
gnttab_get_version 8: dom@0 version@4
gnttab_swap_grant_ref 12: ref_a@0 ref_b@4 status@8
gnttab_cache_flush 16: a.dev_bus_addr@0 a.ref@0 offset@8 length@10 op@12
gnttab_map_revokable 36: map@0 map.status@18 lgfn@32
gnttab_revoke 8: ref@0 status@4
gnttab_unmap_notify 20: target@0 action@4 offset@8 port@12 status@16
xen_secret_allocate 12: pages@0 flags@4 id@8
xen_secret_map 20: id@0 gfn@4 first_page@8 pages@12 flags@16
xen_secret_unmap 8: gfn@0 pages@4
xen_secret_object 4: id@0
xen_secret_share 12: id@0 domid@4 flags@8
xen_secret_accept 12: domid@0 owner_id@4 id@8
xen_secret_revoke 8: id@0 domid@4
xen_secret_query 44: id@0 flags@4 pages@8 objects@12 objects_max@16 bytes_used@20 bytes_mapped@28 bytes_max@36
xen_key_add 32: type@0 type_len@4 description@8 description_len@12 payload@16 payload_len@20 flags@24 ring@28
xen_key_request 32: type@0 type_len@4 description@8 description_len@12 callout@16 callout_len@20 flags@24 ring@28
xen_key_search 24: ring@0 type@4 type_len@8 description@12 description_len@16 destination@20
xen_key_read 16: key@0 buffer@4 length@8 flags@12
xen_key_update 16: key@0 payload@4 payload_len@8 flags@12
xen_key_describe 12: key@0 buffer@4 length@8
xen_key_id 4: key@0
xen_key_link 8: key@0 ring@4
xen_key_set_timeout 8: key@0 seconds@4
xen_key_get_keyring_id 8: ring@0 flags@4
xen_key_join_session 12: name@0 name_len@4 flags@8
xen_memory_reservation 20: extent_start@0 nr_extents@4 extent_order@8 mem_flags@12 domid@16
xen_machphys_mfn_list 12: max_extents@0 extent_start@4 nr_extents@8
xen_add_to_physmap 16: domid@0 size@2 space@4 idx@8 gpfn@12
xen_memory_map 8: nr_entries@0 buffer@4
e820entry 20: addr@0 size@8 type@16
xen_memory_exchange 44: in@0 out@20 nr_exchanged@40
xen_machphys_mapping 12: v_start@0 v_end@4 max_mfn@8
xen_foreign_memory_map 12: domid@0 map@4
xen_remove_from_physmap 8: domid@0 gpfn@4
xen_pod_target 36: target_pages@0 tot_pages@8 pod_cache_pages@16 pod_entries@24 domid@32
xen_add_to_physmap_batch 20: domid@0 space@2 size@4 u.foreign_domid@6 idxs@8 gpfns@12 errs@16
xen_vnuma_topology_info 40: domid@0
xen_mem_acquire_resource 28: domid@0 type@2 id@4 nr_frames@8 pad@12 frame@16 frame_list@24
evtchn_bind_interdomain 12: remote_dom@0 remote_port@4 local_port@8
evtchn_bind_virq 12: virq@0 vcpu@4 port@8
evtchn_bind_pirq 12: pirq@0 flags@4 port@8
evtchn_close 4: port@0
evtchn_send 4: port@0
evtchn_status 24: dom@0 port@4 status@8 vcpu@12 u@16 u.unbound.dom@16 u.interdomain.dom@16 u.interdomain.port@20
  u.pirq@16 u.virq@16
evtchn_alloc_unbound 8: dom@0 remote_dom@2 port@4
evtchn_bind_ipi 8: vcpu@0 port@4
evtchn_bind_vcpu 8: port@0 vcpu@4
evtchn_unmask 4: port@0
evtchn_reset 2: dom@0
evtchn_init_control 24: control_gfn@0 offset@8 vcpu@12 link_bits@16
evtchn_expand_array 8: array_gfn@0
evtchn_set_priority 8: port@0 priority@4
evtchn_fifo_control_block 72: ready@0 head@8
sched_shutdown 4: reason@0
sched_poll 16: ports@0 nr_ports@4 timeout@8
sched_remote_shutdown 8: domain_id@0 reason@4
sched_watchdog 8: id@0 timeout@4
sched_pin_override 4: pcpu@0
physdev_irq_status_query 8: irq@0 flags@4
physdev_eoi 4: irq@0
physdev_map_pirq 36: domid@0 type@4 index@8 pirq@12 bus@16 devfn@20 entry_nr@24 table_base@28
physdev_unmap_pirq 8: domid@0 pirq@4
physdev_pirq_eoi_gmfn 4: gmfn@0
physdev_get_free_pirq 8: type@0 pirq@4
xen_hvm_param 16: domid@0 index@4 value@8
xen_compile_info 144: compiler@0 compile_by@64 compile_domain@80 compile_date@112
xen_feature_info 8: submap_idx@0 submap@4
xen_platform_parameters 4: virt_start@0
xen_build_id 4: len@0
xen_domctl 144: cmd@0 interface_version@4 domain@8 pad@10 u@16 u.createdomain@16 u.max_mem.max_memkb@16
xen_domctl_createdomain 68: ssidref@0 handle@4 flags@20 iommu_opts@24 max_vcpus@28 max_evtchn_port@32
  max_grant_frames@36 max_maptrack_frames@40 grant_opts@44 altp2m.opts@48 altp2m.nr@50 vmtrace_size@52 cpupool_id@56
  arch.emulation_flags@60 arch.misc_flags@64
xen_domctl_getdomaininfo 112: domain@0 flags@4 tot_pages@8 max_pages@16 outstanding_pages@24 shr_pages@32
  paged_pages@40 shared_info_frame@48 cpu_time@56 nr_online_vcpus@64 max_vcpu_id@68 ssidref@72 handle@76 cpupool@92
  gpaddr_bits@96 arch_config@104
xen_domctl_vcpuaffinity 40: vcpu@0 flags@4 cpumap_hard.bitmap@8 cpumap_hard.nr_bits@16 cpumap_soft.bitmap@24
  cpumap_soft.nr_bits@32
xen_domctl_max_mem 8: max_memkb@0
xen_domctl_vcpucontext 16: vcpu@0 ctxt@8
xen_domctl_getvcpuinfo 24: vcpu@0 online@4 blocked@5 running@6 cpu_time@8 cpu@16
xen_domctl_max_vcpus 4: max@0
xen_domctl_setdomainhandle 16: handle@0
xen_domctl_setdebugging 1: enable@0
xen_domctl_irq_permission 8: pirq@0 allow_access@4
xen_domctl_iomem_permission 24: first_mfn@0 nr_mfns@8 allow_access@16
xen_domctl_ioport_permission 12: first_port@0 nr_ports@4 allow_access@8
xen_domctl_hypercall_init 8: gmfn@0
xen_domctl_subscribe 4: port@0
xen_domctl_memory_mapping 32: first_gfn@0 first_mfn@8 nr_mfns@16 add_mapping@24
xen_domctl_set_target 2: target@0
xen_domctl_set_virq_handler 4: virq@0
xen_domctl_get_domain_state 16: state@0 caps@2 unique_id@8
xen_domctl_freeze_memory 8: freeze@0 token@4
xen_domctl_memory_limits 32: max_pages@0 tot_pages@4 extra_pages_max@8 extra_pages@12 what@16 token@20 frozen@24 pad@28
xen_sysctl 136: cmd@0 interface_version@4 u@8
xen_sysctl_getdomaininfolist 24: first_domain@0 max_domains@4 buffer@8 num_domains@16
xen_sysctl_physinfo 112: threads_per_core@0 cores_per_socket@4 nr_cpus@8 max_cpu_id@12 nr_nodes@16 max_node_id@20
  cpu_khz@24 capabilities@28 arch_capabilities@32 total_pages@40 free_pages@48 scrub_pages@56 outstanding_pages@64
  max_mfn@72 hw_cap@80
xenstore_domain_interface 2080: req@0 rsp@1024 req_cons@2048 req_prod@2052 rsp_cons@2056 rsp_prod@2060
  server_features@2064 connection@2068 error@2072 evtchn_port@2076
xsd_sockmsg 16: type@0 req_id@4 tx_id@8 len@12
xencons_interface 3092: in@0 out@1024 in_cons@3072 in_prod@3076 out_cons@3080 out_prod@3084 connection@3088
`;

/** Where a dotted member lies, found through the shapes rather than the handles. */
const offsetOf = (layout: Layout<unknown>, dotted: string): number => {
  let offset = 0;
  let shape: Shape = layout.shape;
  for (const name of dotted.split(".")) {
    assert.ok(shape.kind === "struct" || shape.kind === "union", `${dotted}: ${shape.kind} has no members`);
    const member = shape.members.find((candidate) => candidate.name === name);
    assert.ok(member !== undefined, `no member ${dotted}`);
    offset += member.offset;
    shape = member.layout.shape;
  }
  return offset;
};

/** The handle of a dotted member: `{ offset }` for a leaf, `{ offsetBytes }` for a struct. */
const handleOffset = (layout: Layout<unknown>, dotted: string): number => {
  const handle = dotted.split(".").reduce<unknown>((inner, name) => Reflect.get(Object(inner), name), layout);
  const found: unknown = Reflect.get(Object(handle), "offsetBytes") ?? Reflect.get(Object(handle), "offset");
  assert.ok(typeof found === "number", dotted);
  return found;
};

const isLayout = (value: unknown): value is Layout<unknown> =>
  typeof value === "object" && value !== null && "shape" in value && "bind" in value;

const layouts = new Map<string, Layout<unknown>>(
  Object.entries(abi).flatMap(([name, value]) => (isLayout(value) ? [[name, value] as const] : [])),
);

describe("layouts are those of 32-bit x86", () => {
  const lines = specification.replaceAll("\n  ", " ").trim().split("\n");
  for (const line of lines) {
    const [head = "", tail = ""] = line.split(":");
    const [name = "", size = ""] = head.split(" ");
    it(`${name}: ${size} bytes, members where the interface has them`, () => {
      const layout = layouts.get(name);
      assert.ok(layout !== undefined);
      assert.equal(layout.sizeBytes, Number(size));
      for (const entry of tail.trim().split(" ")) {
        const [member = "", offset = ""] = entry.split("@");
        assert.equal(offsetOf(layout, member), Number(offset), entry);
        assert.equal(handleOffset(layout, member), Number(offset), entry);
      }
    });
  }

  it("every struct that is exported under its Xen name has that name inside", () => {
    for (const [name, { shape }] of layouts) {
      if (shape.kind === "struct" || shape.kind === "union") assert.equal(shape.name, name);
    }
  });

  it("the vcpu_info of vCPU 3 begins 192 bytes into shared_info", () => {
    assert.equal(abi.shared_info.vcpu_info.offsetOf(3), 192);
    assert.equal(abi.shared_info.vcpu_info.element.time.system_time.offset, 48);
    assert.throws(() => abi.shared_info.vcpu_info.offsetOf(32), RangeError);
  });
});
