/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/* What is called around a swap. */
#ifndef SS_HOOKS_H
#define SS_HOOKS_H

#include "include/schedswap/author.h"

/* tables.c */
extern const struct ss_hook *const ss_hooks[];
extern const unsigned int ss_hook_count;

int ss_hooks_ask(enum schedswap_event event);
void ss_hooks_call(enum ss_hook_point point, enum schedswap_event event);

#endif
