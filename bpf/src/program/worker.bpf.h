/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * What scx_pulse.bpf.c keeps for a thread, and what it does for a worker: publishing its CPU time,
 * hints, critical sections, escalation. Only scx_pulse.bpf.c includes this file.
 *
 * Decisions are based on task storage, which no program can write. The lock of the run queue
 * serializes all callbacks for a thread, so its state is changed with plain stores. The timer that
 * releases held threads only reads `release_ns`; at worst it releases one a period late. The
 * program can write its control block, so each word is loaded once, and its value limited.
 */
#ifndef ASIO_PULSE_WORKER_BPF_H
#define ASIO_PULSE_WORKER_BPF_H

/* A held thread waits for its share at most this long at a time. This is far below the 30 s after
 * which the kernel's watchdog ends a scheduler that lets a runnable thread wait. */
#define LONGEST_HOLD_NS 1000000000ULL

/* A kicked worker's slices are a quarter of those of others. A guess: short enough to have an
 * effect, and long enough that two kicked workers on a CPU still make progress. */
#define KICKED_SLICE_SHIFT 2

struct thread_state {
  u64 generation; /* the generation of the registrations when this thread was last looked up */
  u64 serial;     /* of its registration; 0 if it is not a worker */
  u64 sequence;   /* cpu_sequence */
  u64 base_ns;    /* its CPU time when it last slept, yielded or acknowledged */
  u64 seq;        /* preempt_seq */
  u64 hint_ns;    /* when it got the outstanding hint; 0 if there is none */
  u64 hint_base_ns;   /* its CPU time then */
  u64 escalated_ns;   /* the last escalation for this hint; 0 if there was none */
  u64 kicked_until;   /* 0 if it is not kicked */
  u64 throttled_until; /* 0 if it is not throttled */
  u64 throttle_ns;    /* when the throttle began */
  u64 throttle_base_ns; /* its CPU time then */
  u64 release_ns;     /* until when it is held */
  u64 critical_ns;    /* since when the kernel has seen it critical; 0 if it is not */
  u64 of_policy[4];   /* see OF_POLICY() */
  u32 slot;
  u32 priority;
  u32 escalations;
  u32 violations;
  u32 lost_hints;
  u32 revoked;   /* not 0: its critical flag no longer protects it */
  u32 gives_way; /* not 0: its slice was ended early in favour of others */
};

/* Attached to the thread itself and not to its id. A forked thread starts without. */
struct {
  __uint(type, BPF_MAP_TYPE_TASK_STORAGE);
  __uint(map_flags, BPF_F_NO_PREALLOC);
  __type(key, int);
  __type(value, struct thread_state);
} threads SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, struct scx_pulse_settings);
} settings SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SCX_PULSE_MOST_WORKERS);
  __type(key, u32);
  __type(value, struct scx_pulse_worker);
} workers SEC(".maps");

struct control_block_array {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, ASIO_PULSE_SLOT_COUNT);
  __uint(key_size, sizeof(u32));
  __uint(value_size, sizeof(struct asio_pulse_scb));
};

/* Indexed by thread group. Each process can map only its own array. */
struct {
  __uint(type, BPF_MAP_TYPE_HASH_OF_MAPS);
  __uint(max_entries, SCX_PULSE_MOST_PROCESSES);
  __type(key, u32);
  __array(values, struct control_block_array);
} control_blocks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_RINGBUF);
  __uint(max_entries, 1 << 16); /* the loader sets it */
} hints SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, u32);
  __type(value, struct scx_pulse_counts);
} counts SEC(".maps");

/* Changes when the loader has changed `workers`. It is read before the map, so that a change that
 * is missed now is seen at the thread's next look. */
volatile uint64_t generation = 1;

/* A callback that another one on the same CPU interrupts may lose a count. This is accepted. */
#define COUNT(field)                                                        \
  do {                                                                      \
    u32 zero_ = 0;                                                          \
    struct scx_pulse_counts *counts_ = bpf_map_lookup_elem(&counts, &zero_); \
    if (counts_) counts_->field++;                                          \
  } while (0)

#define ONCE(word) (*(volatile typeof(word) *)&(word))

static __always_inline struct scx_pulse_settings *the_settings(void) {
  u32 zero = 0;

  return bpf_map_lookup_elem(&settings, &zero);
}

static __always_inline struct thread_state *state_of(struct task_struct *p) {
  return bpf_task_storage_get(&threads, p, 0, 0);
}

static __always_inline struct thread_state *begin_state(struct task_struct *p) {
  struct thread_state *t = bpf_task_storage_get(&threads, p, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);

  if (!t) return NULL;
  t->generation = 0;
  t->base_ns = p->se.sum_exec_runtime;
  return t;
}

static __always_inline struct asio_pulse_scb *block_at(u32 tgid, u32 slot) {
  void *blocks = bpf_map_lookup_elem(&control_blocks, &tgid);

  return blocks ? bpf_map_lookup_elem(blocks, &slot) : NULL;
}

static __always_inline struct asio_pulse_scb *block_of(struct task_struct *p,
                                                       struct thread_state *t) {
  return block_at(p->tgid, t->slot);
}

static __always_inline bool record(struct task_struct *p, struct thread_state *t, u8 kind,
                                   u8 policy, u64 now) {
  struct asio_pulse_hint *h = bpf_ringbuf_reserve(&hints, sizeof(*h), 0);

  if (!h) return false;
  h->time_ns = now;
  h->seq = t->seq;
  h->ran_ns = p->se.sum_exec_runtime - t->base_ns;
  h->tgid = p->tgid;
  h->tid = p->pid;
  h->slot = t->slot;
  h->kind = kind;
  h->policy = policy;
  h->cpu = bpf_get_smp_processor_id();
  bpf_ringbuf_submit(h, 0);
  return true;
}

/* Publishes the thread's CPU time at the start of a run. The reader is this same thread, which runs
 * afterwards. For other readers the order of the stores does not matter, but it costs nothing. */
static __always_inline void publish(struct task_struct *p, struct thread_state *t,
                                    struct asio_pulse_scb *b) {
  u64 sequence = t->sequence & ~1ULL;

  ONCE(b->cpu_sequence) = sequence + 1;
  barrier();
  ONCE(b->run_ns) = p->se.sum_exec_runtime; /* the kernel's own account: nothing drifts */
  ONCE(b->run_start_ns) = bpf_ktime_get_ns();
  barrier();
  t->sequence = sequence + 2;
  ONCE(b->cpu_sequence) = t->sequence;
  ONCE(b->worker_state) = ASIO_PULSE_WORKER_RUNNING;
}

static __always_inline void publish_end(struct thread_state *t, struct asio_pulse_scb *b,
                                        u8 state) {
  t->sequence |= 1;
  ONCE(b->cpu_sequence) = t->sequence;
  ONCE(b->worker_state) = state;
}

static __always_inline void end_effects(struct task_struct *p, struct thread_state *t) {
  if (!t->kicked_until && !t->throttled_until) return;
  t->kicked_until = 0;
  t->throttled_until = 0;
  t->escalated_ns = t->hint_ns ? bpf_ktime_get_ns() : 0; /* the next one takes another grace */
  COUNT(released);
  record(p, t, ASIO_PULSE_RELEASED, ASIO_PULSE_POLICY_NONE, bpf_ktime_get_ns());
}

/* The thread has slept or acknowledged. Its slice begins anew, and escalations against it end. */
static __always_inline void begin_anew(struct task_struct *p, struct thread_state *t) {
  t->base_ns = p->se.sum_exec_runtime;
  t->hint_ns = 0;
  t->escalated_ns = 0;
  t->revoked = 0;
  end_effects(p, t);
}

/* Reads an acknowledgement. Only that of the outstanding hint counts. A higher number is invalid
 * and ignored; a lower one is old. */
static __always_inline void read_ack(struct task_struct *p, struct thread_state *t,
                                     struct asio_pulse_scb *b) {
  u64 ack = ONCE(b->last_ack_seq);

  if (ack > t->seq) {
    COUNT(hostile);
  } else if (t->hint_ns && ack == t->seq) {
    if (!t->escalated_ns) COUNT(acknowledged);
    begin_anew(p, t);
  }
}

/* Looks for the thread among the registrations after these have changed. It is identified by what
 * the kernel knows: if the id belonged to another thread before, the start time differs. */
static __noinline int look_for(struct task_struct *p, struct thread_state *t) {
  u32 tid = p->pid;
  struct scx_pulse_worker *w;
  struct asio_pulse_scb *b;
  u64 serial = 0;

  t->generation = generation;
  w = bpf_map_lookup_elem(&workers, &tid);
  if (w) {
    if (w->registration.tgid == (u32)p->tgid && w->registration.slot >= 1 &&
        w->registration.slot < ASIO_PULSE_SLOT_COUNT &&
        w->registration.start_ticks == p->start_boottime / (1000000000ULL / SCX_PULSE_USER_HZ))
      serial = w->serial;
    else
      COUNT(stale);
  }
  if (serial == t->serial) return 0;
  if (t->serial) {
    /* The loader retires its block. The slot may belong to another thread by now. */
    COUNT(ended);
    t->seq = 0; /* record() says what it had; the next registration begins anew */
    begin_anew(p, t);
  }
  t->serial = serial;
  if (!serial || !w) return 0;
  t->slot = w->registration.slot;
  t->seq = 0;
  t->hint_ns = 0;
  t->escalated_ns = 0;
  t->critical_ns = 0;
  t->revoked = 0;
  t->escalations = 0;
  t->violations = 0;
  t->lost_hints = 0;
  t->priority = ASIO_PULSE_PRIORITY_DEFAULT;
  t->base_ns = p->se.sum_exec_runtime;
  b = block_of(p, t);
  t->sequence = b ? ONCE(b->cpu_sequence) & ~1ULL : 0; /* whatever it is: it deceives itself only */
  COUNT(registered);
  return 0;
}

static __always_inline u64 slice_of(struct thread_state *t, struct scx_pulse_settings *s) {
  return t && t->kicked_until ? s->slice_ns >> KICKED_SLICE_SHIFT : s->slice_ns;
}

/* Whether a throttled worker has used up its share, and if so, until when it has to wait. There is
 * no period: it is checked at ticks only, and if it has run for too long, it waits for longer. */
static __always_inline bool over_its_share(struct task_struct *p, struct thread_state *t,
                                           struct scx_pulse_settings *s, u64 now) {
  u64 used = p->se.sum_exec_runtime - t->throttle_base_ns;
  u64 percent = s->throttle_percent;
  u64 release;

  if (s->mode != ASIO_PULSE_MODE_ENFORCED || now >= t->throttled_until) return false;
  if (percent < 1) percent = 1;
  if (percent > 100) percent = 100;
  release = t->throttle_ns + used * 100 / percent;
  if (release <= now) return false;
  if (release > t->throttled_until) release = t->throttled_until;
  if (release > now + LONGEST_HOLD_NS) release = now + LONGEST_HOLD_NS;
  t->release_ns = release;
  return true;
}

static __always_inline void hint(struct task_struct *p, struct thread_state *t,
                                 struct asio_pulse_scb *b, u64 now) {
  t->seq++;
  t->hint_ns = now;
  t->hint_base_ns = p->se.sum_exec_runtime;
  t->escalated_ns = 0;
  ONCE(b->preempt_seq) = t->seq;
  COUNT(hints);
  if (!record(p, t, ASIO_PULSE_HINT, ASIO_PULSE_POLICY_NONE, now)) {
    ONCE(b->lost_hints) = ++t->lost_hints;
    COUNT(lost_hints);
  }
}

/* There are seven conditions: the mode is ENFORCED; the thread is a worker that runs; it has a
 * policy; it is escapable; it is not critical; its hint is unacknowledged for longer than the grace
 * period; and it has exceeded its slice. The grace period is wall time, so the worker must also
 * have run since the hint: without a CPU it could not react. */
static __always_inline void escalate(struct task_struct *p, struct thread_state *t,
                                     struct asio_pulse_scb *b, struct scx_pulse_settings *s,
                                     u64 exec, u64 now) {
  u64 chance = s->grace_ns < s->slice_ns ? s->grace_ns : s->slice_ns;
  u64 since = t->escalated_ns ? t->escalated_ns : t->hint_ns;
  u8 policy = ONCE(b->policy);

  if (policy > ASIO_PULSE_POLICY_HYBRID) {
    COUNT(hostile);
    return;
  }
  if (s->mode != ASIO_PULSE_MODE_ENFORCED || policy == ASIO_PULSE_POLICY_NONE ||
      !ONCE(b->escapable) || !t->hint_ns || now <= since + s->grace_ns ||
      exec - t->base_ns <= s->slice_ns || exec - t->hint_base_ns < chance || t->throttled_until)
    return;
  if (policy == ASIO_PULSE_POLICY_HYBRID)
    policy = t->escalated_ns ? ASIO_PULSE_POLICY_CGROUP_THROTTLE : ASIO_PULSE_POLICY_THREAD_KICK;
  t->escalated_ns = now;
  ONCE(b->escalations) = ++t->escalations;
  if (policy == ASIO_PULSE_POLICY_THREAD_KICK) {
    t->kicked_until = now + s->throttle_ns;
    COUNT(kicks);
    record(p, t, ASIO_PULSE_KICKED, policy, now);
    /* Its slice ends with this tick. The kick is for the case that the store came too late. At
     * worst it ends the slice of the thread that runs next. */
    set_slice(p, 0);
    t->gives_way = 1;
    scx_bpf_kick_cpu(bpf_get_smp_processor_id(), SCX_KICK_PREEMPT);
  } else {
    t->throttled_until = now + s->throttle_ns;
    t->throttle_ns = now;
    t->throttle_base_ns = exec;
    COUNT(throttles);
    record(p, t, ASIO_PULSE_THROTTLED, policy, now);
  }
}

/* Handles a running worker at a tick. If it is critical at every tick, it counts as being in one
 * section, since the kernel cannot see what happens in between. */
static __noinline int worker_tick(struct task_struct *p, struct thread_state *t,
                                  struct scx_pulse_settings *s) {
  struct asio_pulse_scb *b = block_of(p, t);
  u64 exec = p->se.sum_exec_runtime;
  u64 now = bpf_ktime_get_ns();
  u32 priority;
  bool protect;

  t->gives_way = 0;
  if (!b) return 0;
  priority = ONCE(b->priority);
  if (priority > ASIO_PULSE_PRIORITY_MOST) {
    COUNT(hostile);
    priority = ASIO_PULSE_PRIORITY_DEFAULT;
  }
  t->priority = priority;
  read_ack(p, t, b);
  if (s->mode != ASIO_PULSE_MODE_ENFORCED ||
      (t->kicked_until && now >= t->kicked_until) ||
      (t->throttled_until && now >= t->throttled_until))
    end_effects(p, t);

  /* An acknowledgement ends the revocation, but not the section: a worker that acknowledges inside
   * a section that never ends is not protected again. */
  protect = ONCE(b->critical) != 0;
  if (!protect)
    t->critical_ns = 0;
  else if (!t->critical_ns)
    t->critical_ns = now;
  if (t->revoked) {
    protect = false;
  } else if (protect && now - t->critical_ns >= s->max_critical_ns) {
    protect = false;
    t->revoked = 1;
    ONCE(b->violations) = ++t->violations;
    COUNT(violations);
    record(p, t, ASIO_PULSE_VIOLATION, ASIO_PULSE_POLICY_NONE, now);
    set_slice(p, 0);
    t->gives_way = 1;
  }

  if (!t->hint_ns && exec - t->base_ns > s->slice_ns)
    hint(p, t, b, now);
  else if (t->hint_ns && !protect)
    escalate(p, t, b, s, exec, now);

  if (protect) {
    /* The kernel would preempt it at the end of its slice, which it checks directly after this. */
    set_slice(p, s->slice_ns);
    COUNT(protected_ticks);
  } else if (t->throttled_until && over_its_share(p, t, s, now)) {
    set_slice(p, 0);
  }
  ONCE(b->budget_ns) = (s64)(s->slice_ns - (exec - t->base_ns));
  ONCE(b->pressure) =
      s->pressure > ASIO_PULSE_PRESSURE_MOST ? ASIO_PULSE_PRESSURE_MOST : s->pressure;
  ONCE(b->mode) = s->mode;
  return 0;
}

#endif
