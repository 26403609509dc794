/* A sched_ext policy: one queue, first in, first out. Compiled without the kernel's headers: libbpf finds what
 * it has to by name in the kernel's own type information. */
#include <linux/types.h>
#include <bpf/bpf_helpers.h>

#define SCX_DSQ_GLOBAL 0x8000000000000001ULL
#define SLICE_NS 20000000

struct task_struct {
	int pid;
} __attribute__((preserve_access_index));

struct sched_ext_ops {
	void (*enqueue)(struct task_struct *p, __u64 flags);
	char name[128];
};

extern void scx_bpf_dsq_insert(struct task_struct *p, __u64 dsq_id, __u64 slice, __u64 enq_flags) __ksym;

char _license[] SEC("license") = "GPL";

SEC("struct_ops/fifo_enqueue")
int fifo_enqueue(unsigned long long *ctx)
{
	scx_bpf_dsq_insert((void *)ctx[0], SCX_DSQ_GLOBAL, SLICE_NS, ctx[1]);
	return 0;
}

SEC(".struct_ops")
struct sched_ext_ops fifo = { .enqueue = (void *)fifo_enqueue, .name = "fifo" };
