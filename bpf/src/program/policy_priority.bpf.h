/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * Policy priority: a CPU has a queue for each priority level, and takes the first thread of the
 * most urgent one. A level that has waited for too long comes first.
 */
#ifndef ASIO_PULSE_POLICY_PRIORITY_BPF_H
#define ASIO_PULSE_POLICY_PRIORITY_BPF_H

#define PRIORITY_LEVELS 4u

enum { priority_queues = PRIORITY_LEVELS, priority_compares = true };

/* A priority level that has waited for this many slices gets its turn. A guess: each such turn
 * makes an urgent thread wait for a slice of a less urgent one; without it, the latter would
 * starve. */
#define AGING_SLICES 20

struct priority_cpu {
  u64 dispatch_ns;                /* when it last looked for a thread to run */
  u64 served_ns[PRIORITY_LEVELS]; /* when the level was last served, or empty */
  u8 waiting[PRIORITY_LEVELS];    /* 0: no thread waits at this level; see mark_waiting() */
};

static __always_inline u32 level_of(struct thread_state *t) {
  u32 priority = t ? t->priority : ASIO_PULSE_PRIORITY_DEFAULT;

  if (t && t->kicked_until) return PRIORITY_LEVELS - 1;
  return priority >= 750 ? 0 : priority >= 500 ? 1 : priority >= 250 ? 2 : 3;
}

/* A thread is about to wait at this level of the CPU. `waiting` says which levels have to be looked
 * at; a look that finds the queue empty clears it. The kernel queues a thread only after enqueue()
 * has returned, so a look just before that clears `waiting` too early. Then the thread is found at
 * the CPU's next tick, or when no other thread waits there. */
static __always_inline void mark_waiting(struct priority_cpu *c, u32 cpu, u32 level, u64 slice_ns) {
  level &= PRIORITY_LEVELS - 1;
  if (c->waiting[level] && ((s64)(c->dispatch_ns - c->served_ns[level]) <= (s64)slice_ns ||
                            scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, level))))
    return;                                 /* others wait there already, or did until now */
  c->served_ns[level] = bpf_ktime_get_ns(); /* the wait begins */
  c->waiting[level] = 1;
}

static __always_inline bool serve(u32 cpu, struct priority_cpu *c, u32 level, u64 now) {
  c->served_ns[level] = now;
  if (dsq_move_to_local(QUEUE_OF(cpu, level))) return true;
  c->waiting[level] = 0;
  return false;
}

static __always_inline void priority_begin(struct task_struct *p, struct thread_state *t) {}

static __always_inline void priority_direct(struct task_struct *p, u32 cpu,
                                            struct scx_pulse_settings *s) {}

static __always_inline void priority_enqueue(struct task_struct *p, struct thread_state *t, u32 cpu,
                                             struct cpu_state *c, struct scx_pulse_settings *s,
                                             u64 slice, u64 enq_flags) {
  u32 level = level_of(t);

  mark_waiting(OF_POLICY(priority_cpu, c), cpu, level, s->slice_ns);
  dsq_insert(p, QUEUE_OF(cpu, level), slice, enq_flags);
}

/* Takes no thread from levels beyond the competitor's, unless one of them has waited for too long.
 */
static __always_inline bool priority_dispatch(u32 cpu, struct cpu_state *state,
                                              struct scx_pulse_settings *s,
                                              struct task_struct *prev,
                                              struct thread_state *competitor) {
  struct priority_cpu *c = OF_POLICY(priority_cpu, state);
  u32 last = competitor ? level_of(competitor) : PRIORITY_LEVELS - 1;
  u64 now = bpf_ktime_get_ns();

  c->dispatch_ns = now;
  for (u32 level = PRIORITY_LEVELS - 1; level >= 1; level--)
    if (now - c->served_ns[level] > AGING_SLICES * s->slice_ns && serve(cpu, c, level, now))
      return true;
  for (u32 level = 0; level < PRIORITY_LEVELS && level <= last; level++)
    if (c->waiting[level] && serve(cpu, c, level, now)) return true;
  if (last < PRIORITY_LEVELS - 1) return false; /* a thread continues: the tick looks */
  for (u32 level = 0; level < PRIORITY_LEVELS; level++)
    if (serve(cpu, c, level, now)) return true;
  return false;
}

static __always_inline void priority_running(struct thread_state *t) {}

/* Also finds threads for which `waiting` was cleared too early. */
static __always_inline u32 priority_length(u32 cpu, struct cpu_state *state) {
  struct priority_cpu *c = OF_POLICY(priority_cpu, state);
  u32 length = 0;

  for (u32 level = 0; level < PRIORITY_LEVELS; level++) {
    u32 here = scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, level));

    if (here) c->waiting[level] = 1;
    length += here;
  }
  return length;
}

/* It goes to the last level. */
static __always_inline void priority_release(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                             u32 cpu, struct cpu_state *c) {
  OF_POLICY(priority_cpu, c)->waiting[PRIORITY_LEVELS - 1] = 1;
  dsq_move(it, p, QUEUE_OF(cpu, PRIORITY_LEVELS - 1));
}

#endif
