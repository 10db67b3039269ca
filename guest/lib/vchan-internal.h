/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XENOLITH_VCHAN_INTERNAL_H
#define XENOLITH_VCHAN_INTERNAL_H

#include <xenolith/vchan.h>

/* Server: asks for what is to happen when it dies, as far as that can be asked for now. */
int xen_vchan_watch_over(struct vchan *channel);

#endif
