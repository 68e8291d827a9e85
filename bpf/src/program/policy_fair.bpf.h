/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * Policy fair: a CPU has one queue in the order of virtual time, which is CPU time by weight.
 */
#ifndef ASIO_PULSE_POLICY_FAIR_BPF_H
#define ASIO_PULSE_POLICY_FAIR_BPF_H

enum { fair_queues = 1, fair_compares = true };

/* A thread is at most this many slices ahead of its queue, or behind it. This limits how long a
 * thread that has had much (alone on another CPU) waits for the others, and how long they wait for
 * one that has had little: this many slices for each thread of the queue. A guess, more than two
 * rotations. */
#define LAG_SLICES 16

struct fair_cpu {
  u64 vtime; /* of the last thread from its own queue, at its start */
};

struct fair_thread {
  u64 vtime;
  u64 charged_ns; /* the part of its CPU time that is in vtime already */
};

static __always_inline void charge(struct task_struct *p, struct fair_thread *t) {
  u64 exec = p->se.sum_exec_runtime;
  u32 weight = p->scx.weight;

  t->vtime += (exec - t->charged_ns) * 100 / (weight ? weight : 100);
  t->charged_ns = exec;
}

/* Keeps a thread's virtual time near that of the queue. */
static __always_inline void keep_near(struct fair_thread *t, struct fair_cpu *c, u64 slice_ns,
                                      bool slept) {
  u64 low = c->vtime - slice_ns * (slept ? 1 : LAG_SLICES);
  u64 high = c->vtime + slice_ns * LAG_SLICES;

  if ((s64)(t->vtime - low) < 0) t->vtime = low;
  if ((s64)(t->vtime - high) > 0) t->vtime = high;
}

/* Whether the running thread has had less than the first one that waits. Without this check two
 * threads would alternate, whatever their weights. */
static __always_inline bool had_less(struct task_struct *prev, struct fair_thread *t, u32 cpu,
                                     u64 slice_ns) {
  struct bpf_iter_scx_dsq it;
  struct task_struct *first;
  bool less = true;

  charge(prev, t);
  if (bpf_iter_scx_dsq_new(&it, QUEUE_OF(cpu, 0), 0) == 0) {
    first = bpf_iter_scx_dsq_next(&it);
    if (first) {
      u64 vtime = first->scx.dsq_vtime;

      /* It may have been held for long, which does not entitle it to more. */
      if ((s64)(t->vtime - (vtime - LAG_SLICES * slice_ns)) < 0)
        t->vtime = vtime - LAG_SLICES * slice_ns;
      less = (s64)(t->vtime - vtime) < 0;
    }
  }
  bpf_iter_scx_dsq_destroy(&it);
  return less;
}

static __always_inline void fair_begin(struct task_struct *p, struct thread_state *t) {
  OF_POLICY(fair_thread, t)->charged_ns = p->se.sum_exec_runtime;
}

static __always_inline void fair_direct(struct task_struct *p, u32 cpu,
                                        struct scx_pulse_settings *s) {
  struct thread_state *t = state_of(p);
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);

  if (t && c) keep_near(OF_POLICY(fair_thread, t), OF_POLICY(fair_cpu, c), s->slice_ns, true);
}

static __always_inline void fair_enqueue(struct task_struct *p, struct thread_state *t, u32 cpu,
                                         struct cpu_state *state, struct scx_pulse_settings *s,
                                         u64 slice, u64 enq_flags) {
  struct fair_cpu *c = OF_POLICY(fair_cpu, state);
  u64 vtime = c->vtime;

  if (t) {
    struct fair_thread *f = OF_POLICY(fair_thread, t);

    charge(p, f);
    keep_near(f, c, s->slice_ns, enq_flags & SCX_ENQ_WAKEUP);
    vtime = f->vtime + (t->kicked_until ? s->slice_ns : 0);
  }
  dsq_insert_vtime(p, QUEUE_OF(cpu, 0), slice, vtime, enq_flags);
}

static __always_inline bool fair_dispatch(u32 cpu, struct cpu_state *c,
                                          struct scx_pulse_settings *s, struct task_struct *prev,
                                          struct thread_state *competitor) {
  if (prev && competitor) {
    struct fair_thread *f = OF_POLICY(fair_thread, competitor);

    if (had_less(prev, f, cpu, s->slice_ns)) {
      OF_POLICY(fair_cpu, c)->vtime = f->vtime; /* as if it had been taken from the queue */
      set_slice(prev, slice_of(competitor, s));
      return true;
    }
  }
  return dsq_move_to_local(QUEUE_OF(cpu, 0));
}

static __always_inline void fair_running(struct thread_state *t) {
  u32 cpu = bpf_get_smp_processor_id();
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);

  if (c && !c->pulled) OF_POLICY(fair_cpu, c)->vtime = OF_POLICY(fair_thread, t)->vtime;
  if (c) c->pulled = 0;
}

static __always_inline u32 fair_length(u32 cpu, struct cpu_state *c) {
  return threads_in(cpu, fair_queues);
}

static __always_inline void fair_release(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                         u32 cpu, struct cpu_state *c) {
  dsq_move_vtime(it, p, QUEUE_OF(cpu, 0));
}

#endif
