// SPDX-License-Identifier: GPL-2.0-or-later OR BSD-3-Clause
/*
 * The rebuild: everything that is queued leaves its queue through the old code and comes back through the new.
 *
 * Runs inside the stop, on each CPU for its own run queue, interrupts off. The thread on the CPU is the stopper, so
 * no thread that is dequeued here is any CPU's `curr`, and none is half way through a migration (those happen with
 * interrupts off). The rq lock is held for each half but not between them: core scheduling shares it among SMT
 * siblings. Nothing looks at the queues in between, because every CPU is in our handler.
 */
#include <linux/sched/signal.h>
#include "runtime.h"
#include "compat.h"

struct rebuild {
	/*
	 * What was dequeued, in the order in which it goes back, chained through se.group_node. That links a thread
	 * into cfs_tasks while it is on the fair queue and is unused otherwise, in every class: the load balancer
	 * chains the threads that it has detached in the same way. So no memory is needed that could run out.
	 *
	 * RT and DEADLINE threads go to the end of their queues, so the first out is the first in. Fair threads: last
	 * out, first in. So every place is computed from the tree, and the weights of groups, that the thread has
	 * left; and enqueueing adds at the head of cfs_tasks, whose order the load balancer goes by.
	 */
	struct list_head chain, fair_chain;
	bool was_online;
};

static DEFINE_PER_CPU(struct rebuild, rebuilds);

/*
 * Like set_rq_offline and set_rq_online in core.c, for all classes but fair. RT and DEADLINE leave and join the root
 * domain's shared state (cpupri, cpudl, overload masks) and lift RT throttling, which makes every RT thread
 * reachable from its queue. Fair's callbacks would recompute the tunables from defaults (update_sysctl), losing
 * what was written to debugfs, and would let throttled groups run beyond their quota. Neither is wanted or
 * needed: threads of a throttled group stay on cfs_tasks and its own queue, where the class takes them from.
 */
static void go_offline(struct rq *rq)
{
	const struct sched_class *class;

	for_each_class(class)
		if (class->rq_offline && class != &fair_sched_class)
			class->rq_offline(rq);
	cpumask_clear_cpu(rq->cpu, rq->rd->online);
	rq->online = 0;		/* from here the classes leave the root domain alone */
}

static void go_online(struct rq *rq)
{
	const struct sched_class *class;

	cpumask_set_cpu(rq->cpu, rq->rd->online);
	rq->online = 1;
	for_each_class(class)
		if (class->rq_online && class != &fair_sched_class)
			class->rq_online(rq);
}

/*
 * SAVE and RESTORE say that the thread stays runnable: no sleep accounting, no placement as if it had woken. MOVE
 * takes RT and DEADLINE threads off their lists; without it RT would leave them linked. For fair it would only
 * advance min_vruntime while threads leave, and bring each back further to the right; set_user_nice omits it too.
 * NOCLOCK: the caller has updated the clock.
 */
static int dequeue_flags(const struct task_struct *p)
{
	return DEQUEUE_SAVE | DEQUEUE_NOCLOCK | (p->sched_class == &fair_sched_class ? 0 : DEQUEUE_MOVE);
}

static int enqueue_flags(const struct task_struct *p)
{
	return ENQUEUE_RESTORE | ENQUEUE_NOCLOCK | (p->sched_class == &fair_sched_class ? 0 : ENQUEUE_MOVE);
}

/* Returns false if the old code keeps the thread in cfs_tasks. */
static bool dequeue(struct rq *rq, struct task_struct *p, struct rebuild *rebuild)
{
	bool fair = p->sched_class == &fair_sched_class;
	s64 lag = fair ? ss_lag_when_delayed(p) : 0;

	p->sched_class->dequeue_task(rq, p, dequeue_flags(p));
	if (fair && !list_empty(&p->se.group_node))
		return false;
	if (fair) {
		ss_keep_lag_when_delayed(p, lag);
		list_add(&p->se.group_node, &rebuild->fair_chain);
	} else {
		list_add_tail(&p->se.group_node, &rebuild->chain);
	}
	return true;
}

/* The thread is on no queue and in no chain. */
static void enqueue(struct rq *rq, struct task_struct *p)
{
	bool fair = p->sched_class == &fair_sched_class;
	s64 lag = fair ? ss_lag_when_delayed(p) : 0;

	if (fair)
		ss_aim_at_old_place(p);
	p->sched_class->enqueue_task(rq, p, enqueue_flags(p));
	if (fair)
		ss_keep_lag_when_delayed(p, lag);
}

/* The next RT thread in queue order. Groups (CONFIG_RT_GROUP_SCHED) are entities with a queue of their own. */
static struct task_struct *first_rt_task(struct rt_rq *rt_rq)
{
	struct sched_rt_entity *rt_se = NULL;

	while (rt_rq) {
		unsigned int prio = sched_find_first_bit(rt_rq->active.bitmap);

		if (prio >= MAX_RT_PRIO)	/* the bitmap's delimiter: nothing queued */
			return NULL;
		rt_se = list_first_entry(&rt_rq->active.queue[prio], struct sched_rt_entity, run_list);
#ifdef CONFIG_RT_GROUP_SCHED
		rt_rq = rt_se->my_q;
#else
		rt_rq = NULL;
#endif
	}
	return container_of(rt_se, struct task_struct, rt);
}

/* The next DEADLINE thread after `node`, the tree's first if NULL; servers in the tree are not threads. */
static struct task_struct *next_dl_task(struct rq *rq, struct rb_node *node)
{
	node = node ? rb_next(node) : rb_first_cached(&rq->dl.root);
	for (; node; node = rb_next(node)) {
		struct sched_dl_entity *dl_se = rb_entry(node, struct sched_dl_entity, rb_node);

		if (!ss_is_dl_server(dl_se))
			return container_of(dl_se, struct task_struct, dl);
	}
	return NULL;
}

static void for_each_rt_queued(struct rt_rq *rt_rq, void (*fn)(struct task_struct *p, void *data), void *data)
{
	struct sched_rt_entity *rt_se;
	unsigned int prio;

	for_each_set_bit(prio, rt_rq->active.bitmap, MAX_RT_PRIO)
		list_for_each_entry(rt_se, &rt_rq->active.queue[prio], run_list) {
#ifdef CONFIG_RT_GROUP_SCHED
			if (rt_se->my_q) {	/* as deep as cgroups are nested */
				for_each_rt_queued(rt_se->my_q, fn, data);
				continue;
			}
#endif
			fn(container_of(rt_se, struct task_struct, rt), data);
		}
}

/* All threads on this CPU's queues. Only reads, so no lock: nothing writes while the machine is stopped. */
void ss_for_each_queued(void (*fn)(struct task_struct *p, void *data), void *data)
{
	struct rq *rq = this_rq();
	struct task_struct *p;

	list_for_each_entry(p, &rq->cfs_tasks, se.group_node)
		fn(p, data);
	for_each_rt_queued(&rq->rt, fn, data);
	for (p = next_dl_task(rq, NULL); p; p = next_dl_task(rq, &p->dl.rb_node))
		fn(p, data);
}

static bool is_on_a_queue(struct task_struct *p)
{
	if (p->sched_class == &fair_sched_class)
		return p->se.on_rq;
	if (p->sched_class == &rt_sched_class)
		return p->rt.on_rq;
	if (p->sched_class == &dl_sched_class)
		return !RB_EMPTY_NODE(&p->dl.rb_node);
	return false;
}

/* Bench only: the cost of finding what is queued by looking at every thread of the machine. */
static void dequeue_by_walking_all(struct rq *rq, struct rebuild *rebuild)
{
	struct task_struct *process, *p;

	for_each_process_thread(process, p)
		if (task_cpu(p) == rq->cpu && p->on_rq == TASK_ON_RQ_QUEUED && is_on_a_queue(p))
			dequeue(rq, p, rebuild);
}

static void dequeue_by_walking_queues(struct rq *rq, struct rebuild *rebuild)
{
	struct task_struct *p;

	for (p = next_dl_task(rq, NULL); p; p = next_dl_task(rq, NULL)) {
		dequeue(rq, p, rebuild);
		if (!RB_EMPTY_NODE(&p->dl.rb_node))	/* still there: the check below refuses, don't spin */
			break;
	}
	while ((p = first_rt_task(&rq->rt))) {
		dequeue(rq, p, rebuild);
		if (p->rt.on_list)
			break;
	}
	while (!list_empty(&rq->cfs_tasks))
		if (!dequeue(rq, list_first_entry(&rq->cfs_tasks, struct task_struct, se.group_node), rebuild))
			break;
}

/* Returns how many are left on the queues, besides the stopper: if not 0, the old code kept something back. */
int ss_dequeue_this_cpu(bool walk_all_threads)
{
	struct rebuild *rebuild = this_cpu_ptr(&rebuilds);
	struct rq *rq = this_rq();
	struct rq_flags rf;
	unsigned int i, left;

	INIT_LIST_HEAD(&rebuild->chain);
	INIT_LIST_HEAD(&rebuild->fair_chain);
	rq_lock(rq, &rf);		/* interrupts are off already */
	update_rq_clock(rq);
	rebuild->was_online = rq->online;	/* half-offlined by hand (hotplug/target): keep it that way */
	if (rebuild->was_online)
		go_offline(rq);
	ss_stop_dl_servers(rq);
	if (walk_all_threads)
		dequeue_by_walking_all(rq, rebuild);
	dequeue_by_walking_queues(rq, rebuild);	/* all, or the dying threads that are in no list of threads */
	if (ss_cfs_queued(rq))
		ss_flush_delayed_groups(rq);
	left = rq->nr_running - task_on_rq_queued(rq->stop) + ss_cfs_queued(rq);
	for (i = 0; i < MAX_RT_PRIO; i++)
		left += !list_empty(&rq->rt.active.queue[i]);
	left += !list_empty(&rq->cfs_tasks);
	rq_unlock(rq, &rf);
	return left;
}

static void put_again(struct rq *rq, struct task_struct *p)
{
	s64 lag = ss_lag_when_delayed(p);

	p->sched_class->dequeue_task(rq, p, dequeue_flags(p));
	ss_keep_lag_when_delayed(p, lag);
	ss_recall_place(p);
	enqueue(rq, p);
}

/*
 * Where a thread's weight depends on its group: twice off and on, which first gives it its weight, now that its group is
 * complete, and then, with this weight, its place. (Both at once cannot be: its place is given as a lag, and that is
 * scaled when the weight changes. The class's reweight_task would limit the lag.) From the end of cfs_tasks to its head,
 * so that the order is the same in the end. `count`: fair threads that were enqueued.
 */
static void settle_threads_of_groups(struct rq *rq, unsigned int count)
{
	for (; count && !list_empty(&rq->cfs_tasks); count--) {
		struct task_struct *p = list_last_entry(&rq->cfs_tasks, struct task_struct, se.group_node);

		if (ss_is_to_be_weighed_again(p)) {
			put_again(rq, p);
			put_again(rq, p);
		} else {
			list_move(&p->se.group_node, &rq->cfs_tasks);
		}
	}
}

/*
 * Puts everything back through whatever code is current. No reschedule is asked for: the stopper goes to sleep
 * when the stop ends, and then the CPU picks again.
 */
unsigned int ss_enqueue_this_cpu(void)
{
	struct rebuild *rebuild = this_cpu_ptr(&rebuilds);
	struct rq *rq = this_rq();
	struct task_struct *p, *next;
	unsigned int count = 0, fair = 0;
	struct rq_flags rf;

	rq_lock(rq, &rf);
	update_rq_clock(rq);
	if (rebuild->was_online)
		go_online(rq);	/* first, so that enqueueing joins the root domain's state again */
	list_splice_tail(&rebuild->fair_chain, &rebuild->chain);
	list_for_each_entry_safe(p, next, &rebuild->chain, se.group_node) {
		list_del_init(&p->se.group_node);
		ss_remember_place(p);
		enqueue(rq, p);
		fair += p->sched_class == &fair_sched_class;
		count++;
	}
	settle_threads_of_groups(rq, fair);
	rq_unlock(rq, &rf);
	return count;
}
