/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both ends of a revokable vchan. The other domain's id is at data/peer in the xenstore.
 *
 *   serve WORDS   offers a channel, sends 1, 2, 3, ..., and takes the channel's memory back after WORDS words (0: never)
 *   read          reads until the channel is closed, and says what it got
 */
#include <xenolith/vchan.h>
#include <xenolith/xenstore.h>

#define WORDS 4096
#define RING_BYTES (1u << 20)
/* The reader says so when it has had this many. */
#define FLOWING_WORDS (1u << 20)

static struct vchan channel;
static uint32_t words[WORDS];

static domid_t peer(void) {
  uint32_t domid = 0;
  if (xenstore_read_number(XENSTORE_NO_TX, "data/peer", &domid) < 0) xen_shutdown(SHUTDOWN_crash);
  return (domid_t)domid;
}

static void serve(uint32_t limit) {
  uint32_t sent = 0;
  int status = vchan_server_init(&channel, peer(), "data/stream", 1024, RING_BYTES, VCHAN_REVOKABLE);
  if (status < 0) xen_shutdown(SHUTDOWN_crash);
  while (limit == 0 || sent < limit) {
    for (uint32_t i = 0; i < WORDS; i++) words[i] = sent + i + 1;
    if (vchan_write(&channel, words, sizeof words) != sizeof words) break;
    sent += WORDS;
  }
  status = vchan_revoke(&channel);
  xen_printk("sent %u words, revoked: %d\n", (unsigned int)sent, status);
  vchan_close(&channel);
}

static void read_all(void) {
  uint32_t got = 0, wrong = 0, kept = 0;
  int count;
  char path[64];
  domid_t server = peer();
  xen_snprintf(path, sizeof path, "/local/domain/%u/data/stream", (unsigned int)server);
  if (vchan_client_wait_init(&channel, server, path, 0, 0) < 0) xen_shutdown(SHUTDOWN_crash);
  while ((count = vchan_read(&channel, (char *)words + kept, sizeof words - kept)) > 0) {
    uint32_t bytes = kept + (uint32_t)count, whole = bytes / sizeof *words;
    for (uint32_t i = 0; i < whole; i++) wrong += words[i] != got + i + 1;
    if (got < FLOWING_WORDS && got + whole >= FLOWING_WORDS) xen_printk("flowing\n");
    got += whole;
    kept = bytes % sizeof *words;
    for (uint32_t i = 0; i < kept; i++) ((char *)words)[i] = ((char *)words)[whole * sizeof *words + i];
  }
  xen_printk("got %u words, %u wrong, then %d\n", (unsigned int)got, (unsigned int)wrong, count);
  vchan_close(&channel);
}

void xen_main(const struct start_info *start) {
  const char *text = (const char *)start->cmd_line;
  uint32_t number = 0;
  if (*text == 'r') return read_all();
  for (text += sizeof "serve"; *text >= '0' && *text <= '9'; text++) number = number * 10 + (uint32_t)(*text - '0');
  serve(number);
}
