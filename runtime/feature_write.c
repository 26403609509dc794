// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * Writing the features file while only a part of the scheduler is the module's: what asks about a feature in vmlinux
 * asks vmlinux's switches, so those follow the module's.
 */
#include <linux/fs.h>
#include "runtime.h"
#include "compat.h"
#include "entries.h"

extern ssize_t features_writer(struct file *file, const char __user *text, size_t count, loff_t *pos)
	__asm__(SS_FEATURES_WRITER);

ssize_t ss_entry_features_written(struct file *file, const char __user *text, size_t count, loff_t *pos);

/* The file's write method, in process context. */
noinline __used __section(".text.entries")
ssize_t ss_entry_features_written(struct file *file, const char __user *text, size_t count, loff_t *pos)
{
	ssize_t written = features_writer(file, text, count, pos);

	ss_features_mirror();
	return written;
}
