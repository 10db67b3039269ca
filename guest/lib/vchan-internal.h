/* SPDX-License-Identifier: Apache-2.0 */
#ifndef XENOLITH_VCHAN_INTERNAL_H
#define XENOLITH_VCHAN_INTERNAL_H

#include <xenolith/vchan.h>

/* Server: takes its nodes out of the xenstore. */
void xen_vchan_withdraw(struct vchan *channel);

#endif
