/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * Policy round-robin: a CPU has one queue, which is first in, first out.
 */
#ifndef ASIO_PULSE_POLICY_ROUND_ROBIN_BPF_H
#define ASIO_PULSE_POLICY_ROUND_ROBIN_BPF_H

enum { round_robin_queues = 1, round_robin_compares = false };

static __always_inline void round_robin_begin(struct task_struct *p, struct thread_state *t) {}

static __always_inline void round_robin_direct(struct task_struct *p, u32 cpu,
                                               struct scx_pulse_settings *s) {}

static __always_inline void round_robin_enqueue(struct task_struct *p, struct thread_state *t,
                                                u32 cpu, struct cpu_state *c,
                                                struct scx_pulse_settings *s, u64 slice,
                                                u64 enq_flags) {
  dsq_insert(p, QUEUE_OF(cpu, 0), slice, enq_flags);
}

static __always_inline bool round_robin_dispatch(u32 cpu, struct cpu_state *c,
                                                 struct scx_pulse_settings *s,
                                                 struct task_struct *prev,
                                                 struct thread_state *competitor) {
  return dsq_move_to_local(QUEUE_OF(cpu, 0));
}

static __always_inline void round_robin_running(struct thread_state *t) {}

static __always_inline u32 round_robin_length(u32 cpu, struct cpu_state *c) {
  return threads_in(cpu, round_robin_queues);
}

static __always_inline void round_robin_release(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                                u32 cpu, struct cpu_state *c) {
  dsq_move(it, p, QUEUE_OF(cpu, 0));
}

#endif
