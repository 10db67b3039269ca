/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest library: console, events, pages, time. No libc is needed; it works beside wasi-libc too. Grants, xenstore
 * and vchan have headers of their own: <xenolith/grants.h>, <xenolith/xenstore.h>, <xenolith/xenbus.h>,
 * <xenolith/vchan.h>. One vCPU at a time may be in the library.
 *
 *   #include <xenolith/guest.h>
 *
 *   void xen_main(const struct start_info *start) {
 *     xen_printk("hello from domain memory, %u pages\n", start->nr_pages);
 *   }
 */
#ifndef XENOLITH_GUEST_H
#define XENOLITH_GUEST_H

#include <stddef.h>
#include <stdint.h>

#include <xenolith/event_channel.h>
#include <xenolith/hypercall.h>
#include <xenolith/memory.h>
#include <xenolith/sched.h>
#include <xenolith/vcpu.h>
#include <xenolith/version.h>
#include <xenolith/xen.h>

#define XEN_PAGE_SHIFT 12
#define XEN_PAGE_SIZE (1u << XEN_PAGE_SHIFT)

/* ---- start ---- */

/* Yours: called once on vCPU 0. When it returns the domain powers off with SHUTDOWN_poweroff. */
void xen_main(const struct start_info *start);
/* What the builder passed; valid from the start of xen_main. */
extern const struct start_info *xen_start_info;
/* Ends the domain: SHUTDOWN_poweroff, SHUTDOWN_crash, ... Does not return. */
_Noreturn void xen_shutdown(unsigned int reason);

/* ---- console ---- */

/* Writes `length` bytes to the hypervisor console; 0 or a negative errno. */
int xen_console_write(const char *text, size_t length);
/* A small printf: %s %c %d %i %u %x %p %% with l and ll, width and 0 padding. At most 1024 bytes a call. */
int xen_printk(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same into memory, as snprintf: always terminated when size > 0; returns the whole length (at most 1024). */
int xen_snprintf(char *to, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* ---- events ---- */

/* Called with the port that fired; events of one port merge, so look at all there is to do. */
typedef void (*xen_event_handler)(evtchn_port_t port, void *context);

/* Installs `handler` for a port that exists and unmasks it; 0 or -EINVAL. A null handler masks it again. */
int xen_event_on(evtchn_port_t port, xen_event_handler handler, void *context);
/* The next three return a port (>= 1) or a negative errno. */
int xen_event_alloc_unbound(domid_t remote);
int xen_event_bind_interdomain(domid_t remote, evtchn_port_t remote_port);
int xen_event_bind_virq(unsigned int virq, unsigned int vcpu);
int xen_event_send(evtchn_port_t port);
int xen_event_close(evtchn_port_t port);
/*
 * Sleeps until `port` is pending or `deadline_ns` of system time (0: none) has passed; other events are served
 * meanwhile and may end the sleep early. A port without a handler must be masked (xen_event_on with NULL), or an upcall
 * may take its event; its pending bit is cleared here. So: test what you wait for, call this at once, test again. 0, or
 * -EINVAL when the port is not open.
 */
int xen_event_wait(evtchn_port_t port, uint64_t deadline_ns);
/* Upcalls off; returns whether they were on. */
_Bool xen_upcalls_off(void);
/* Upcalls on again when `on`; serves what came meanwhile. */
void xen_upcalls_restore(_Bool on);
/* Serves what is pending now; returns how many handlers ran. */
unsigned int xen_event_dispatch(void);
/* Serves events, sleeping in between, until xen_event_loop_stop() was called from a handler. */
void xen_event_loop(void);
void xen_event_loop_stop(void);

/* ---- pages ---- */

/* 2^order zeroed pages, aligned to their size, taken from the hypervisor; NULL when the domain's limit is reached. */
void *xen_pages_alloc(unsigned int order);
/* Gives them back: the host has the memory again when this returns. */
void xen_pages_free(void *pages, unsigned int order);
/* The same for a run of `count` pages of any length, aligned to one page. */
void *xen_pages_alloc_run(uint32_t count);
void xen_pages_free_run(void *pages, uint32_t count);
/* Addresses of `count` pages in a row at which nothing stands, to map something there; NULL: no room. */
void *xen_holes_alloc(uint32_t count);
/* Nothing stands there any more. */
void xen_holes_free(void *holes, uint32_t count);
/* Pages that the domain owns now, and may own at most. */
int xen_pages_current(void);
int xen_pages_maximum(void);

/* ---- time ---- */

/* Nanoseconds of system time. */
uint64_t xen_time_ns(void);
/* Sleeps until `deadline_ns` of system time or until an event comes. */
void xen_sleep_until(uint64_t deadline_ns);

#endif
