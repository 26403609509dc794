/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/* What the runtime's files provide to each other. */
#ifndef SS_RUNTIME_H
#define SS_RUNTIME_H

#define SS_LOG "schedswap: "

#include <linux/types.h>
#include <linux/sched.h>
#include <linux/time64.h>
#include "schedswap.h"

/*
 * Which way the swap goes: load diverts vmlinux's functions, unload gives them back, switch takes them from another
 * scheduler module, the predecessor, without vmlinux's own running in between.
 */
enum ss_op { SS_LOAD, SS_UNLOAD, SS_SWITCH };

struct kobject;
struct module;
struct mutex;
struct ss_handover;

/* What one swap cost. Times in ns. */
struct ss_timing {
	enum ss_op op;
	unsigned int cpus;
	unsigned int threads;		/* alive when their stacks were walked */
	unsigned int logged;		/* ran between that walk and the stop */
	unsigned int checked;		/* stacks walked inside the stop */
	unsigned int requeued;		/* taken off a queue and put back */
	bool rebuilt;			/* the queues; otherwise nobody was requeued */
	u64 stop_ns;			/* stop_machine, call to return */
	u64 handler_ns;			/* all CPUs inside → the last one done */
	u64 stack_check_ns;		/* these four are parts of handler_ns */
	u64 dequeue_ns;
	u64 patch_ns;
	u64 enqueue_ns;
	u64 check_outside_ns;		/* before the stop, machine running */
	u64 total_ns;
	u64 empty_stop_ns;		/* of a stop that does nothing; 0: not measured */
};

/* main.c */
int ss_request(bool enable);
ssize_t ss_plan(char *buf);
const char *ss_state_name(void);
bool ss_is_enabled(void);
time64_t ss_enabled_since(void);
int ss_be_taken_over(void);
void ss_taken_over(bool done);
int ss_request_retirement(void);
int ss_request_release(void);

/* retire.c */
bool ss_keep(void);
void ss_keep_no_longer(void);
bool ss_is_kept(void);
bool ss_author_has_code_around_swaps(void);
bool ss_memory_is_proved(void);
int ss_retire(void);

/* Of kernel/module: guards the list of modules, each one's name, state and list of uses. No header has it since 5.12. */
extern struct mutex module_mutex;

/*
 * hold.c. The kernel reads this: it is its struct module_use, which linux/module.h has in older kernels, and
 * kernel/module/internal.h in newer ones.
 */
struct ss_use {
	struct list_head source_list;
	struct list_head target_list;
	struct module *source;
	struct module *target;
};

bool ss_hold(struct module *module, struct ss_use *use);
void ss_let_go(struct ss_use *use);

/* handover.c; the struct is in handover.h */
extern struct ss_handover ss_handover;
struct ss_handover *ss_handover_begin(void);
void ss_handover_end(struct ss_handover *predecessor, bool done);
const char *ss_handover_version(const struct ss_handover *predecessor);

/* checks.c: process context, may sleep */
int ss_check_build_id(void);
int ss_livepatch_lock(void);
void ss_livepatch_unlock(void);
const char *ss_own_build_id(void);

/* text.c */
int ss_text_prepare(const struct ss_handover *predecessor);
void ss_text_forget(void);
void ss_text_settle(void);
void ss_text_release(void);
int ss_text_map(void);
void ss_text_unmap(void);
void ss_text_lock(void);
void ss_text_unlock(void);
int ss_text_check(enum ss_op op);
bool ss_text_is_as_checked(enum ss_op op);
void ss_text_write(enum ss_op op);

/* switchlog.c */
int ss_log_start(void);
void ss_log_restart(void);
void ss_log_drain(void (*fn)(struct task_struct *p, void *data), void *data);
void ss_log_freeze(void);
bool ss_log_overflowed(void);
unsigned int ss_log_count(void);
void ss_log_for_this_cpu(void (*fn)(struct task_struct *p, void *data), void *data);
void ss_log_stop(void);

/* state.c */
int ss_state_match(const struct ss_handover *predecessor);
void ss_state_copy(enum ss_op op, const struct ss_handover *predecessor);
void ss_state_forget(void);

/* extension.c */
int ss_extension_prepare(const struct ss_handover *predecessor);
bool ss_extension_suffices(const struct ss_handover *predecessor);
void ss_extension_take_over(const struct ss_handover *predecessor);
void ss_extension_complete(void);
void ss_extension_drop(void);
ssize_t ss_extension_show(char *buf);

/* stackcheck.c */
#define SS_BLOCKERS_MAX 10
struct ss_blocker {
	char comm[TASK_COMM_LEN];
	pid_t pid;
	unsigned long addr;
};

struct ss_check {
	bool diverts;			/* no thread may be in a function of vmlinux that is diverted */
	const struct ss_text *texts;	/* nor in the code of the module that is going out */
	unsigned int text_count;
	struct task_struct *asker;	/* waits for the stop inside vmlinux: not checked */
	atomic_t checked;
	atomic_t busy;
	struct ss_blocker blockers[SS_BLOCKERS_MAX];
};

int ss_check_outside(struct ss_check *check, unsigned int *threads);
int ss_check_logged(struct ss_check *check);
void ss_check_this_cpu(struct ss_check *check);
void ss_check_share_of_all(struct ss_check *check, unsigned int share, unsigned int shares);
void ss_blockers_keep(struct ss_check *check);
void ss_blockers_clear(void);
ssize_t ss_blockers_show(char *buf);

/* unused.c */
int ss_check_text_is_unused(void);
void ss_wait_until_text_is_unused(void);

/* rebuild.c: inside the stop, for the CPU it runs on */
void ss_for_each_queued(void (*fn)(struct task_struct *p, void *data), void *data);
int ss_dequeue_this_cpu(bool walk_all_threads);
unsigned int ss_enqueue_this_cpu(void);

/* place.c: inside the stop */
void ss_aim_at_old_place(struct task_struct *p);

/* order.c */
int ss_order_begin(void);
void ss_order_note(bool after);
void ss_order_report(void);
void ss_order_end(void);

/* features.c */
struct ss_feature_change {
	const struct ss_feature_set *from, *to;
	u64 carried;			/* bits of `from`, as they were when they were carried over */
};

int ss_features_carry(struct ss_feature_change *change);
bool ss_features_are_as_carried(const struct ss_feature_change *change);
void ss_features_mirror(void);

/* swap.c */
int ss_swap(enum ss_op op, const struct ss_handover *predecessor);
ssize_t ss_swap_plan(enum ss_op op, const struct ss_handover *predecessor, char *buf);

/* report.c */
void ss_report(const struct ss_timing *timing, const char *from);
ssize_t ss_timing_show(char *buf);

/* sysfs.c */
int ss_sysfs_add(bool beside_another);
void ss_sysfs_remove(void);
bool ss_sysfs_is_in_charge(void);
void ss_sysfs_take_charge(void);
void ss_sysfs_leave(struct kobject *directory, const char *module);
void ss_sysfs_retire(const char *module);

#endif
