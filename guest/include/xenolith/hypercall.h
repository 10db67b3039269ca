/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Hypercalls as C functions. Each is an import from the module "xen", with the arguments of Xen's call of the same
 * name; results are >= 0 or a negative errno (-EINVAL is -22 and so on, see <xenolith/errno.h>).
 */
#ifndef XENOLITH_HYPERCALL_H
#define XENOLITH_HYPERCALL_H

#include <stdint.h>

#define XENOLITH_IMPORT(name) __attribute__((import_module("xen"), import_name(name)))

/* XENMEM_*: memory reservation and physical map. */
XENOLITH_IMPORT("memory_op") int HYPERVISOR_memory_op(unsigned int cmd, void *arg);
/* A list of `nr_calls` struct multicall_entry. */
XENOLITH_IMPORT("multicall") int HYPERVISOR_multicall(void *call_list, unsigned int nr_calls);
/* XENVER_* */
XENOLITH_IMPORT("xen_version") int HYPERVISOR_xen_version(unsigned int cmd, void *arg);
/* CONSOLEIO_* */
XENOLITH_IMPORT("console_io") int HYPERVISOR_console_io(unsigned int cmd, unsigned int count, const void *buffer);
/* VCPUOP_* */
XENOLITH_IMPORT("vcpu_op") int HYPERVISOR_vcpu_op(unsigned int cmd, unsigned int vcpu, void *arg);
/* SCHEDOP_* */
XENOLITH_IMPORT("sched_op") int HYPERVISOR_sched_op(unsigned int cmd, void *arg);
/* EVTCHNOP_* */
XENOLITH_IMPORT("event_channel_op") int HYPERVISOR_event_channel_op(unsigned int cmd, void *arg);
/* GNTTABOP_*: a list of `count` structs. 0 although entries failed: each has its status. */
XENOLITH_IMPORT("grant_table_op") int HYPERVISOR_grant_table_op(unsigned int cmd, void *args, unsigned int count);
/* PHYSDEVOP_* */
XENOLITH_IMPORT("physdev_op") int HYPERVISOR_physdev_op(unsigned int cmd, void *arg);
/* HVMOP_* */
XENOLITH_IMPORT("hvm_op") int HYPERVISOR_hvm_op(unsigned int op, void *arg);
/* XENSECRET_*: secret memory. */
XENOLITH_IMPORT("secret_op") int HYPERVISOR_secret_op(unsigned int cmd, void *arg);
/* XENKEY_*: the domain's keys. */
XENOLITH_IMPORT("key_op") int HYPERVISOR_key_op(unsigned int cmd, void *arg);
/* XEN_DOMCTL_*, XEN_SYSCTL_*: control domains only. */
XENOLITH_IMPORT("domctl") int HYPERVISOR_domctl(void *op);
XENOLITH_IMPORT("sysctl") int HYPERVISOR_sysctl(void *op);
/* Any hypercall by number. */
XENOLITH_IMPORT("hypercall")
int xen_hypercall(unsigned int number, unsigned int a, unsigned int b, unsigned int c, unsigned int d, unsigned int e);

XENOLITH_IMPORT("set_timer_op") int xen_set_timer_words(unsigned int low, unsigned int high);

/* Fires VIRQ_TIMER at `deadline_ns` of system time; 0 stops the timer. */
static inline int HYPERVISOR_set_timer_op(uint64_t deadline_ns) {
  return xen_set_timer_words((unsigned int)deadline_ns, (unsigned int)(deadline_ns >> 32));
}

#endif
