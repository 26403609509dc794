// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/* What the last swap cost: one line in the kernel log, and key=value lines in sysfs. */
#include <linux/kernel.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>
#include "runtime.h"

static DEFINE_MUTEX(last_mutex);	/* guards the two below */
static struct ss_timing last;
static const char *const op[] = { "load", "unload", "switch" }, *const done[] = { "loaded", "unloaded", "switched to" };
static bool have_last;

static unsigned long long us(u64 ns)
{
	return div_u64(ns + 500, NSEC_PER_USEC);
}

/* `from`: the version that was running, if it was a module's. */
void ss_report(const struct ss_timing *t, const char *from)
{
	mutex_lock(&last_mutex);
	last = *t;
	have_last = true;
	mutex_unlock(&last_mutex);
	pr_info(SS_LOG "%s %s%s%s: %u functions on %u CPUs with %u threads; stopped for %llu us, handler %llu us (stack check %llu, dequeue %llu, patch %llu, enqueue %llu), %s%u threads requeued; outside the stop all stacks were checked in %llu us, %u threads ran meanwhile, %u stacks were checked again inside; %llu us in all\n",
		done[t->op], ss_version, from ? " from " : "", from ?: "", ss_patch_count, t->cpus, t->threads,
		us(t->stop_ns), us(t->handler_ns), us(t->stack_check_ns), us(t->dequeue_ns), us(t->patch_ns),
		us(t->enqueue_ns), t->rebuilt ? "" : "queues not rebuilt, ", t->requeued, us(t->check_outside_ns), t->logged, t->checked, us(t->total_ns));
	if (t->empty_stop_ns)
		pr_info(SS_LOG "a stop that does nothing takes %llu us here\n", us(t->empty_stop_ns));
}

ssize_t ss_timing_show(char *buf)
{
	const struct ss_timing *t = &last;
	ssize_t len = 0;

	mutex_lock(&last_mutex);
	if (!have_last)
		goto out;
	len = sysfs_emit(buf, "op=%s\ncpus=%u\nthreads=%u\nlogged=%u\nchecked=%u\nrequeued=%u\n",
			 op[t->op], t->cpus, t->threads, t->logged, t->checked,
			 t->requeued);
	len += sysfs_emit_at(buf, len, "stop_ns=%llu\nhandler_ns=%llu\nstack_check_ns=%llu\ndequeue_ns=%llu\n",
			     t->stop_ns, t->handler_ns, t->stack_check_ns, t->dequeue_ns);
	len += sysfs_emit_at(buf, len, "patch_ns=%llu\nenqueue_ns=%llu\ncheck_outside_ns=%llu\ntotal_ns=%llu\n",
			     t->patch_ns, t->enqueue_ns, t->check_outside_ns, t->total_ns);
	len += sysfs_emit_at(buf, len, "functions=%u\nrebuild=%d\n", ss_patch_count, t->rebuilt);
	if (t->empty_stop_ns)
		len += sysfs_emit_at(buf, len, "empty_stop_ns=%llu\n", t->empty_stop_ns);
out:
	mutex_unlock(&last_mutex);
	return len;
}
