/* SPDX-License-Identifier: Apache-2.0 */
/* Moving bytes through an open channel. The rules R1-R5 are those of <xenolith/vchan.h>. */
#include "internal.h"
#include <xenolith/vchan.h>
#include <xenolith/grants.h>

/*
 * How often a sleeper looks whether the other end is still there. Each side has an event sent at its death, but whoever
 * closes the port by other means than vchan_close sends none: then only memory says so.
 */
#define LOOK_AGAIN_NS 500000000ull

/* How much of a stream the other end is told of at a time: it copies one piece while this end copies the next. */
#define PIECE_BYTES (64u << 10)

#ifndef __wasm_atomics__
#error "vchan needs -matomics (xencc sets it)"
#endif

static uint32_t load(const volatile uint32_t *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

static uint8_t load_byte(const volatile uint8_t *byte) { return __atomic_load_n(byte, __ATOMIC_SEQ_CST); }

static int fail(struct vchan *channel, int error) {
  if (channel->error == 0) channel->error = error;
  return channel->error;
}

/* R3: whether all that was read from shared pages until now was read from the server's. */
static _Bool is_fresh(const struct vchan *channel) {
  if (channel->server || !channel->revokable) return 1;
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
  return load(channel->epoch_word) == channel->epoch && load(channel->guard) == channel->epoch;
}

/* An index of the other end gave `count`, which cannot be more than the ring holds. */
static int judge(struct vchan *channel, uint32_t count, const struct vchan_ring *ring) {
  if (channel->error == -XEN_EIO) return channel->error;
  if (!is_fresh(channel)) return fail(channel, -XEN_ENOTCONN);
  return count > ring->size ? fail(channel, -XEN_EIO) : (int)count;
}

int vchan_data_ready(struct vchan *channel) {
  return judge(channel, load(&channel->read.shared->prod) - channel->read.index, &channel->read);
}

int vchan_buffer_space(struct vchan *channel) {
  struct vchan_ring *ring = &channel->write;
  int in_use = judge(channel, ring->index - load(&ring->shared->cons), ring);
  return in_use < 0 ? in_use : (int)ring->size - in_use;
}

/* Asks the other end for an event; what is looked at afterwards is newer than the request. */
static void request_notify(struct vchan *channel, uint8_t bit) {
  struct vchan_control *control = channel->control;
  __atomic_fetch_or(channel->server ? &control->cli_notify : &control->srv_notify, bit, __ATOMIC_SEQ_CST);
}

static void send_notify(struct vchan *channel, uint8_t bit) {
  struct vchan_control *control = channel->control;
  uint8_t *asked = channel->server ? &control->srv_notify : &control->cli_notify;
  if (__atomic_fetch_and(asked, (uint8_t)~bit, __ATOMIC_SEQ_CST) & bit) xen_event_send(channel->port);
}

int vchan_is_open(struct vchan *channel) {
  if (channel->error != 0) return 0;
  if (!channel->server) return is_fresh(channel) && load_byte(&channel->control->srv_live) == 1;
  uint8_t live = load_byte(&channel->control->cli_live);
  if (live > 1) return 2;
  return live == 1 && (!channel->revokable || grant_in_use_for_writing(channel->ring_ref));
}

/* Copies `size` bytes, which may run over the ring's end. */
static void copy_out(const struct vchan_ring *ring, char *to, uint32_t size) {
  uint32_t at = ring->index & (ring->size - 1), first = ring->size - at;
  if (first > size) first = size;
  __builtin_memcpy(to, ring->data + at, first);
  __builtin_memcpy(to + first, ring->data, size - first);
}

static void copy_in(const struct vchan_ring *ring, const char *from, uint32_t size) {
  uint32_t at = ring->index & (ring->size - 1), first = ring->size - at;
  if (first > size) first = size;
  __builtin_memcpy(ring->data + at, from, first);
  __builtin_memcpy(ring->data, from + first, size - first);
}

/* Delivers `size` bytes that are there, or none and -ENOTCONN. */
static int take(struct vchan *channel, char *to, uint32_t size) {
  struct vchan_ring *ring = &channel->read;
  copy_out(ring, to, size);
  if (!is_fresh(channel)) return fail(channel, -XEN_ENOTCONN);
  ring->index += size;
  __atomic_store_n(&ring->shared->cons, ring->index, __ATOMIC_SEQ_CST);
  send_notify(channel, VCHAN_NOTIFY_READ);
  return (int)size;
}

static int put(struct vchan *channel, const char *from, uint32_t size) {
  struct vchan_ring *ring = &channel->write;
  copy_in(ring, from, size);
  ring->index += size;
  __atomic_store_n(&ring->shared->prod, ring->index, __ATOMIC_SEQ_CST);
  send_notify(channel, VCHAN_NOTIFY_WRITE);
  return (int)size;
}

/* What `look` says; when that is less than `wanted`, asks for an event and looks again. */
static int look_or_ask(struct vchan *channel, int (*look)(struct vchan *), uint32_t wanted, uint8_t bit) {
  int count = look(channel);
  if (count < 0 || (uint32_t)count >= wanted) return count;
  request_notify(channel, bit);
  return look(channel);
}

int vchan_wait(struct vchan *channel, uint64_t deadline_ns) {
  return channel->port == 0 ? -XEN_ENOTCONN : xen_event_wait(channel->port, deadline_ns);
}

/*
 * Waits until `look` says at least `wanted`. Returns that, 0 when it is less and the channel does not block, -ENOTCONN when it
 * never will be more: the other end is gone, and was before the last look.
 */
static int await(struct vchan *channel, int (*look)(struct vchan *), uint32_t wanted, uint8_t bit) {
  for (;;) {
    /* In this order, and no hypercall between the look and the wait: nothing that happens in between is slept through. */
    _Bool open = vchan_is_open(channel) != 0;
    int count = look_or_ask(channel, look, wanted, bit);
    if (count < 0 || (uint32_t)count >= wanted) return count;
    if (!open) return -XEN_ENOTCONN;
    if (!channel->blocking) return 0;
    int status = vchan_wait(channel, xen_time_last() + LOOK_AGAIN_NS);
    if (status < 0) return status;
  }
}

static uint32_t least(uint32_t a, uint32_t b) { return a < b ? a : b; }

int vchan_read(struct vchan *channel, void *to, size_t size) {
  if (size == 0) return 0;
  int ready = await(channel, vchan_data_ready, 1, VCHAN_NOTIFY_WRITE);
  if (ready <= 0) return ready;
  uint32_t wanted = (uint32_t)ready < size ? (uint32_t)ready : (uint32_t)size, done = 0;
  while (done < wanted) {
    int taken = take(channel, (char *)to + done, least(wanted - done, PIECE_BYTES));
    if (taken < 0) return done > 0 ? (int)done : taken;
    done += (uint32_t)taken;
  }
  return (int)done;
}

int vchan_recv(struct vchan *channel, void *to, size_t size) {
  if (size > channel->read.size) return -XEN_E2BIG;
  if (size == 0) return 0;
  int ready = await(channel, vchan_data_ready, (uint32_t)size, VCHAN_NOTIFY_WRITE);
  return ready <= 0 ? ready : take(channel, to, (uint32_t)size);
}

/* Room for `wanted` bytes in a channel whose other end is there, or will be. */
static int room(struct vchan *channel, uint32_t wanted) {
  if (!vchan_is_open(channel)) return channel->error < 0 ? channel->error : -XEN_ENOTCONN;
  return await(channel, vchan_buffer_space, wanted, VCHAN_NOTIFY_READ);
}

int vchan_write(struct vchan *channel, const void *from, size_t size) {
  const char *bytes = from;
  size_t done = 0;
  while (done < size) {
    int space = room(channel, 1);
    if (space <= 0) return done > 0 ? (int)done : space;
    size_t left = size - done;
    uint32_t piece = least((uint32_t)space, PIECE_BYTES);
    done += (size_t)put(channel, bytes + done, piece < left ? piece : (uint32_t)left);
  }
  return (int)done;
}

int vchan_send(struct vchan *channel, const void *from, size_t size) {
  if (size > channel->write.size) return -XEN_E2BIG;
  if (size == 0) return 0;
  int space = room(channel, (uint32_t)size);
  return space <= 0 ? space : put(channel, from, (uint32_t)size);
}

int vchan_flush(struct vchan *channel, uint64_t deadline_ns) {
  for (;;) {
    _Bool open = vchan_is_open(channel) != 0;
    _Bool late = deadline_ns != 0 && xen_time_ns() >= deadline_ns;
    int space = look_or_ask(channel, vchan_buffer_space, channel->write.size, VCHAN_NOTIFY_READ);
    if (space < 0 || (uint32_t)space == channel->write.size) return space < 0 ? space : 0;
    if (!open || late) return open ? -XEN_ETIMEDOUT : -XEN_ENOTCONN;
    uint64_t again = xen_time_last() + LOOK_AGAIN_NS;
    int status = vchan_wait(channel, deadline_ns != 0 && deadline_ns < again ? deadline_ns : again);
    if (status < 0) return status;
  }
}
