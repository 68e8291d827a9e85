/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * What scx_pulse.bpf.c knows about CPUs: the machine, as the loader describes it, the numbers of a
 * CPU's queues, and its state. Only scx_pulse.bpf.c includes this file, after worker.bpf.h.
 */
#ifndef ASIO_PULSE_CPU_BPF_H
#define ASIO_PULSE_CPU_BPF_H

#define CPU_MASK (SCX_PULSE_MOST_CPUS - 1)
_Static_assert((SCX_PULSE_MOST_CPUS & CPU_MASK) == 0, "a mask keeps indices in their arrays");

/* Set by the loader before the program is loaded. (Variables that the loader uses have types of
 * <stdint.h>.) */
const volatile uint32_t nr_cpus = 1;   /* one more than the largest number */
const volatile uint32_t nr_online = 1; /* of domain_cpus */
const volatile uint32_t nr_domains = 1;
const volatile uint16_t cpu_domain[SCX_PULSE_MOST_CPUS];
const volatile uint16_t domain_first[SCX_PULSE_MOST_CPUS]; /* in domain_cpus */
const volatile uint16_t domain_size[SCX_PULSE_MOST_CPUS];
const volatile uint16_t domain_cpus[SCX_PULSE_MOST_CPUS]; /* those of a domain side by side */

/* Queue of a CPU: its number, and which of its queues. The policy has the first ones, as many as it
 * wants; the last one is for threads that are held. */
#define QUEUES_SHIFT 3
#define QUEUE_HELD ((1u << QUEUES_SHIFT) - 1)
#define QUEUE_OF(cpu, which) (((u64)(cpu) << QUEUES_SHIFT) | (which))

struct cpu_state {
  struct bpf_timer timer; /* releases held threads */
  u64 no_pull_ns;         /* nothing is taken over before */
  u64 rotate_ns;          /* nothing from a queue that is hardly longer before */
  u32 balance;            /* not 0: a tick has passed since the last comparison */
  u32 pulled;             /* not 0: who runs next is from another CPU's queue */
  u64 of_policy[8];       /* see OF_POLICY() */
};

/* What the policy keeps, as its `struct type`, in the state of a CPU or of a thread. It is zero at
 * first, and nobody else uses it. */
#define OF_POLICY(type, state)                                                                   \
  ({                                                                                             \
    _Static_assert(sizeof(struct type) <= sizeof((state)->of_policy), "it has to fit in there"); \
    (struct type *)(state)->of_policy;                                                           \
  })

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SCX_PULSE_MOST_CPUS);
  __type(key, u32);
  __type(value, struct cpu_state);
} cpus SEC(".maps");

/* How many threads wait in the first `queues` queues of the CPU. */
static __always_inline u32 threads_in(u32 cpu, u32 queues) {
  u32 length = 0;

  for (u32 which = 0; which < queues; which++)
    length += scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, which));
  return length;
}

#endif
