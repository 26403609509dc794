/* SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause */
/*
 * What the author of a scheduler may declare to the runtime that carries it: state of threads, groups and run queues
 * beyond the kernel's structures, and functions to be called around a swap.
 *
 * Include it behind "sched.h". Only builds that go into a module find it.
 */
#ifndef SCHEDSWAP_AUTHOR_H
#define SCHEDSWAP_AUTHOR_H

#include <linux/compiler.h>
#include <linux/kernel.h>
#include <linux/log2.h>
#include <linux/percpu.h>
#include <linux/types.h>

/*
 * State
 *
 *	struct my_task { u64 ran_ns; unsigned int hops; };
 *	SCHEDSWAP_TASK_STATE(struct my_task, my_task);
 *
 * defines `struct my_task *my_task(struct task_struct *p)`. It gives the thread's own record: zeroed at first, the same
 * for as long as the thread lives and the scheduler runs, never NULL, in constant time. It may be called wherever the
 * scheduler may look at `p`, but not from an NMI, nor after free_task has begun on it.
 *
 *	SCHEDSWAP_GROUP_STATE(type, name)	the same of a struct task_group
 *	SCHEDSWAP_RQ_STATE(type, name)		the same of a struct rq; at most 32 kB
 *
 * To use it in other files too, declare it in a header they share (SCHEDSWAP_DECLARE_TASK_STATE(type, name), …) as well.
 *
 * After the name may follow, separated by commas:
 *
 *	.init = fn	void fn(type *state, struct task_struct *p): called once for each record, before anybody sees it.
 *			Inside fork, or on first use by a thread that was there before: so with interrupts off and
 *			perhaps with run queues locked. No lock, no sleeping, no allocation, and no look at this very record
 *			but through `state`. In fork, `p` is still a copy
 *			of its parent and `current` is that parent. For run queues: before the stop, may sleep.
 *	.exit = fn	void fn(type *state): called once for each record, when the object is freed, or the scheduler
 *			has been unloaded, or a version that does not keep the record has taken over. The object may be gone.
 *			Interrupts may be off; kfree() is fine. No lock, no sleeping.
 *	.keeps_pointers = true
 *			The next version may take the records over though they hold pointers: the author's word that these
 *			lead to nothing of the module itself, neither its functions nor its variables, but to other
 *			records, to what was allocated, or into vmlinux.
 *
 * When a next version takes over and declares a state of the same name and type, the records stay as they are. If
 * anything of the type differs, or if it holds pointers and one of the two does not say .keeps_pointers, the next
 * version starts with new ones.
 *
 * There must be memory for all objects before the swap: else it is refused with -ENOMEM, and nothing has changed.
 */

enum ss_kind_id { SS_KIND_TASK = 1, SS_KIND_GROUP, SS_KIND_RQ };

/*
 * Records, or whatever belongs to a slot, in pieces that never move. Slot 0 is nobody's. Both this and the next are
 * known to modules of other versions of schedswap: see runtime/handover.h.
 */
struct ss_table {
	u8 **pieces;
	u32 capacity;		/* slots there is memory for; written last, so that who reads it finds the pieces */
	u32 stride;		/* bytes of a record */
	u32 shift;		/* a piece has 1 << shift records */
	u32 room;		/* how many pieces `pieces` can list */
};

/* Called for one type of object; in truth with pointers to that type and to the author's. */
struct ss_state_calls {
	void (*init)(void *state, void *object);
	void (*exit)(void *state);
	bool keeps_pointers;
};

/* One state. The build reads `kind` where the compiler put it: first. */
struct schedswap_state {
	u32 kind;
	u32 hole;		/* where in the object the number of its slot is */
	struct ss_table table;
	const void *(*make)(struct schedswap_state *state, const void *object);	/* when the quick way finds no record */
	void __percpu *per_cpu;
	void *last_resort;
	const char *name;
	const struct ss_state_calls *calls;
	u32 size;		/* of the author's type */
	u32 offset;		/* of it in a record */
};

/* As large as the allocator hands out whole pages for: pieces are aligned to one. */
#define SS_PIECE_BYTES 16384
#define SS_SHIFT(stride) ((stride) >= SS_PIECE_BYTES ? 0 : ilog2(SS_PIECE_BYTES / (stride)))

/*
 * The hole is padding: a fork copies the parent's number into it, and a scheduler that has been unloaded may have left
 * one. So a number means nothing until the record says that it is this object's. Records stay where they are for as
 * long as this code runs, so looking is always safe.
 */
static __always_inline const void *ss_record_of(struct schedswap_state *state, const void *object, u32 stride)
{
	u32 slot = READ_ONCE(*(const u32 *)(object + state->hole));

	if (likely(slot < smp_load_acquire(&state->table.capacity))) {
		u32 shift = SS_SHIFT(stride);
		const void *record = READ_ONCE(state->table.pieces)[slot >> shift] +
				     (size_t)(slot & ((1u << shift) - 1)) * stride;

		if (likely(smp_load_acquire((const void *const *)record) == object))
			return record;
	}
	return state->make(state, object);
}

#define SS_DECLARE_STATE(type, label, object_type)						\
	struct label##__record {								\
		const void *owner;								\
		type state;									\
	};											\
	extern struct schedswap_state label##__state;						\
	static inline __maybe_unused type *label(object_type *object)				\
	{											\
		const struct label##__record *record =						\
			ss_record_of(&label##__state, object, sizeof(struct label##__record));	\
												\
		return (type *)&record->state;							\
	}

#define SCHEDSWAP_DECLARE_TASK_STATE(type, label)  SS_DECLARE_STATE(type, label, struct task_struct)
#define SCHEDSWAP_DECLARE_GROUP_STATE(type, label) SS_DECLARE_STATE(type, label, struct task_group)

#define SCHEDSWAP_DECLARE_RQ_STATE(type, label)							\
	struct label##__record {								\
		type state;									\
	};											\
	extern struct schedswap_state label##__state;						\
	static inline __maybe_unused type *label(struct rq *rq)					\
	{											\
		struct label##__record __percpu *records = label##__state.per_cpu;		\
												\
		return &per_cpu_ptr(records, cpu_of(rq))->state;				\
	}

#define SS_DEFINE_STATE(id, type, label, object_type, ...)					\
	static const struct {									\
		void (*init)(type *state, object_type *object);					\
		void (*exit)(type *state);							\
		bool keeps_pointers;								\
	} label##__calls = { __VA_ARGS__ };							\
	static_assert(__alignof__(struct label##__record) <= PAGE_SIZE);			\
	struct schedswap_state label##__state __used __section(".schedswap.state") = {		\
		.kind = id,									\
		.name = #label,									\
		.calls = (const struct ss_state_calls *)&label##__calls,			\
		.size = sizeof(type),								\
		.offset = offsetof(struct label##__record, state),				\
		.table = {									\
			.stride = sizeof(struct label##__record),				\
			.shift = SS_SHIFT(sizeof(struct label##__record)),			\
		},										\
	}

#define SCHEDSWAP_TASK_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_TASK_STATE(type, label)						\
	SCHEDSWAP_DEFINE_TASK_STATE(type, label, __VA_ARGS__)
#define SCHEDSWAP_GROUP_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_GROUP_STATE(type, label)						\
	SCHEDSWAP_DEFINE_GROUP_STATE(type, label, __VA_ARGS__)
#define SCHEDSWAP_RQ_STATE(type, label, ...)							\
	SCHEDSWAP_DECLARE_RQ_STATE(type, label)							\
	SCHEDSWAP_DEFINE_RQ_STATE(type, label, __VA_ARGS__)

/* For what is declared in a header already. */
#define SCHEDSWAP_DEFINE_TASK_STATE(type, label, ...)						\
	SS_DEFINE_STATE(SS_KIND_TASK, type, label, struct task_struct, __VA_ARGS__)
#define SCHEDSWAP_DEFINE_GROUP_STATE(type, label, ...)						\
	SS_DEFINE_STATE(SS_KIND_GROUP, type, label, struct task_group, __VA_ARGS__)
#define SCHEDSWAP_DEFINE_RQ_STATE(type, label, ...)						\
	static_assert(sizeof(struct label##__record) <= PCPU_MIN_UNIT_SIZE);			\
	SS_DEFINE_STATE(SS_KIND_RQ, type, label, struct rq, __VA_ARGS__)

/*
 * Hooks
 *
 *	static int ready(enum schedswap_event event) { … return 0; }
 *	SCHEDSWAP_BEFORE_SWAP(ready);
 *
 *	when			what is allowed
 *	BEFORE_SWAP		Machine running, on the scheduler before this one. May sleep and allocate. Returns int: other than 0
 *				refuses the swap with that error.
 *	IN_SWAP			Inside the stop: interrupts off, all other CPUs waiting, every run queue empty, this code
 *				about to become the current one. Memory may be read and written. No lock (its holder may be
 *				stopped), no sleeping, no allocation, no wake-up; printk_deferred() only. All of the machine
 *				waits for it to return.
 *	AFTER_SWAP		Machine running, on this scheduler. May sleep and allocate. The place to start timers.
 *	BEFORE_UNLOAD		Machine running, on this scheduler, which goes on until the stop: see to it that nothing is armed
 *				anew, stop timers, flush work. May sleep and allocate.
 *	IN_UNLOAD		Inside the stop, as IN_SWAP; this code has just ceased to be the current one.
 *	AFTER_UNLOAD		Machine running, on the scheduler after this one. May sleep. The states are still there. The last
 *				moment of the module's code: from its return on nothing may lead to it.
 *
 * `event` says which swap it is. If it is refused after the hooks before it have been called (by a busy thread, say: the
 * loader tries again), their counterparts are called with SCHEDSWAP_REFUSED: after BEFORE_SWAP, AFTER_UNLOAD; after
 * BEFORE_UNLOAD, AFTER_SWAP.
 *
 * Several at one point are called in the order in which they stand in the scheduler's units, and on the way out the other
 * way round.
 */

enum schedswap_event {
	SCHEDSWAP_LOAD,		/* in: the kernel's own scheduler has run so far */
	SCHEDSWAP_TAKE_OVER,	/* in: another module's has */
	SCHEDSWAP_UNLOAD,	/* out: the kernel's own will run */
	SCHEDSWAP_HAND_OVER,	/* out: another module's will */
	SCHEDSWAP_REFUSED,	/* nothing was swapped */
};

enum ss_hook_point {
	SS_BEFORE_SWAP, SS_IN_SWAP, SS_AFTER_SWAP, SS_BEFORE_UNLOAD, SS_IN_UNLOAD, SS_AFTER_UNLOAD,
};

struct ss_hook {
	u32 point;
	int (*ask)(enum schedswap_event event);		/* SS_BEFORE_SWAP */
	void (*call)(enum schedswap_event event);	/* all others */
};

#define SS_HOOK(at, point_name, member, fn)							\
	static const struct ss_hook ss_##point_name##__##fn __used __section(".schedswap.hooks") = { \
		.point = at,									\
		.member = fn,									\
	}

#define SCHEDSWAP_BEFORE_SWAP(fn)	SS_HOOK(SS_BEFORE_SWAP, before_swap, ask, fn)
#define SCHEDSWAP_IN_SWAP(fn)		SS_HOOK(SS_IN_SWAP, in_swap, call, fn)
#define SCHEDSWAP_AFTER_SWAP(fn)	SS_HOOK(SS_AFTER_SWAP, after_swap, call, fn)
#define SCHEDSWAP_BEFORE_UNLOAD(fn)	SS_HOOK(SS_BEFORE_UNLOAD, before_unload, call, fn)
#define SCHEDSWAP_IN_UNLOAD(fn)		SS_HOOK(SS_IN_UNLOAD, in_unload, call, fn)
#define SCHEDSWAP_AFTER_UNLOAD(fn)	SS_HOOK(SS_AFTER_UNLOAD, after_unload, call, fn)

#endif
