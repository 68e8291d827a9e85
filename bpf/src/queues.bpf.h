/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The queues of scx_pulse.bpf.c: which thread a CPU takes next, and from where. Only
 * scx_pulse.bpf.c includes this file, after worker.bpf.h.
 */
#ifndef ASIO_PULSE_QUEUES_BPF_H
#define ASIO_PULSE_QUEUES_BPF_H

#define CPU_MASK (SCX_PULSE_MOST_CPUS - 1)
_Static_assert((SCX_PULSE_MOST_CPUS & CPU_MASK) == 0, "a mask keeps indices in their arrays");

/* Set by the loader before the program is loaded. (Variables that the loader uses have types of
 * <stdint.h>.) */
const volatile uint32_t local_policy = SCX_PULSE_ROUND_ROBIN;
const volatile uint32_t nr_cpus = 1;   /* one more than the largest number */
const volatile uint32_t nr_online = 1; /* of domain_cpus */
const volatile uint32_t nr_domains = 1;
const volatile uint16_t cpu_domain[SCX_PULSE_MOST_CPUS];
const volatile uint16_t domain_first[SCX_PULSE_MOST_CPUS]; /* in domain_cpus */
const volatile uint16_t domain_size[SCX_PULSE_MOST_CPUS];
const volatile uint16_t domain_cpus[SCX_PULSE_MOST_CPUS]; /* those of a domain side by side */

/* Queue of a CPU: its number, and which of its queues. */
#define QUEUES_SHIFT 3
#define QUEUE_HELD SCX_PULSE_LEVELS
#define QUEUE_OF(cpu, which) (((u64)(cpu) << QUEUES_SHIFT) | (which))

/* A priority level that has waited for this many slices gets its turn. A guess: each such turn
 * makes an urgent thread wait for a slice of a less urgent one; without it, the latter would
 * starve. */
#define AGING_SLICES 20

/* A permitted imbalance must not disadvantage the same threads for ever. So at this interval a CPU
 * takes over a thread from a longer queue, even if it is longer only by one. A guess: with less
 * there are more migrations; with more, it is less fair if threads cannot be divided equally among
 * CPUs. */
#define ROTATION_SLICES 6

/* Policy fair: a thread is at most this many slices ahead of its queue, or behind it. This limits
 * how long a thread that has had much (alone on another CPU) waits for the others, and how long
 * they wait for one that has had little: this many slices for each thread of the queue. A guess,
 * more than two rotations. */
#define LAG_SLICES 16

/* A CPU spends at most 1/PULL_PAUSE of its time on taking over threads. The pause is limited,
 * because the machine may have been stopped meanwhile. Guesses. */
#define PULL_PAUSE 32
#define LONGEST_PULL_PAUSE_NS 200000000ULL

/* The interval at which held threads are checked, while there are some. */
#define HOLD_CHECK_NS 1000000ULL

struct cpu_state {
  struct bpf_timer timer;          /* releases held threads */
  u64 vtime;                       /* fair: of the last thread from its own queue, at its start */
  u64 no_pull_ns;                  /* nothing is taken over before */
  u64 rotate_ns;                   /* nothing from a queue that is hardly longer before */
  u64 dispatch_ns;                 /* priority: when it last looked for somebody to run */
  u64 served_ns[SCX_PULSE_LEVELS]; /* when the level was last served, or empty */
  u8 waiting[SCX_PULSE_LEVELS];    /* 0: nobody waits at this level; see mark_waiting() */
  u32 balance;                     /* not 0: a tick has passed since the last comparison */
  u32 pulled;                      /* not 0: who runs next is from another CPU's queue */
};

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, SCX_PULSE_MOST_CPUS);
  __type(key, u32);
  __type(value, struct cpu_state);
} cpus SEC(".maps");

/* How many threads wait for each CPU, as it saw at its last tick, or when it last found none. For
 * the loader. */
uint32_t queue_lengths[SCX_PULSE_MOST_CPUS];

static __always_inline u32 queue_length(u32 cpu) {
  u32 length = scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, 0));

  if (local_policy == SCX_PULSE_PRIORITY)
    for (u32 level = 1; level < SCX_PULSE_LEVELS; level++)
      length += scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, level));
  return length;
}

struct search {
  u32 self;
  u32 first;
  u32 busiest;
  u32 length;
};

static long look_at_queue(u32 i, struct search *search) {
  u32 cpu = domain_cpus[(search->first + i) & CPU_MASK];
  u32 length;

  if (cpu == search->self) return 0;
  length = queue_length(cpu);
  if (length > search->length) {
    search->length = length;
    search->busiest = cpu;
  }
  return 0;
}

/* Takes over a thread from the longest of the nearest queues that are longer than `more`. The
 * kernel skips threads that may not run here one by one, with that queue locked. If this takes
 * long, the next attempt is delayed, so that it stays a small part of the time. */
static __noinline int pull(u32 cpu, u32 more) {
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
  u64 begun, ended, pause;
  int moved = 0;
  u32 domain = cpu_domain[cpu & CPU_MASK] & CPU_MASK;
  struct search search = {.self = cpu, .first = domain_first[domain], .length = more};

  bpf_loop(domain_size[domain], look_at_queue, &search, 0);
  if (search.length <= more && nr_domains > 1) {
    search.first = 0;
    bpf_loop(nr_online, look_at_queue, &search, 0);
  }
  if (search.length <= more || !c) return 0;
  begun = bpf_ktime_get_ns();
  if (begun < c->no_pull_ns) return 0;
  for (u32 level = 0; level < SCX_PULSE_LEVELS; level++) {
    moved = dsq_move_to_local(QUEUE_OF(search.busiest, level));
    if (moved || local_policy != SCX_PULSE_PRIORITY) break;
  }
  ended = bpf_ktime_get_ns();
  pause = PULL_PAUSE * (ended - begun);
  c->no_pull_ns = ended + (pause < LONGEST_PULL_PAUSE_NS ? pause : LONGEST_PULL_PAUSE_NS);
  if (moved) COUNT(pulled);
  return moved;
}

/* Policy priority: a thread is about to wait at this level of the CPU. `waiting` says which levels
 * have to be looked at; a look that finds the queue empty clears it. The kernel queues a thread
 * only after enqueue() has returned, so a look just before that clears `waiting` too early. Then
 * the thread is found at the CPU's next tick, or when no other thread waits there. */
static __always_inline void mark_waiting(struct cpu_state *c, u32 cpu, u32 level, u64 slice_ns) {
  level &= SCX_PULSE_LEVELS - 1;
  if (c->waiting[level] && ((s64)(c->dispatch_ns - c->served_ns[level]) <= (s64)slice_ns ||
                            scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, level))))
    return; /* others wait there already, or did until now */
  c->served_ns[level] = bpf_ktime_get_ns(); /* the wait begins */
  c->waiting[level] = 1;
}

/* The length of the CPU's own queue. Also finds threads for which `waiting` was cleared too early.
 * */
static __always_inline u32 own_length(u32 cpu, struct cpu_state *c) {
  u32 length = 0;

  if (local_policy != SCX_PULSE_PRIORITY) return queue_length(cpu);
  for (u32 level = 0; level < SCX_PULSE_LEVELS; level++) {
    u32 here = scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, level));

    if (here) c->waiting[level] = 1;
    length += here;
  }
  return length;
}

static __always_inline bool serve(u32 cpu, struct cpu_state *c, u32 level, u64 now) {
  c->served_ns[level] = now;
  if (dsq_move_to_local(QUEUE_OF(cpu, level))) return true;
  c->waiting[level] = 0;
  return false;
}

/* Takes no thread from levels beyond `last`, unless one of them has waited for too long. */
static __always_inline bool take_own(u32 cpu, struct cpu_state *c, struct scx_pulse_settings *s,
                                     u32 last) {
  u64 now;

  if (local_policy != SCX_PULSE_PRIORITY) return dsq_move_to_local(QUEUE_OF(cpu, 0));
  now = bpf_ktime_get_ns();
  c->dispatch_ns = now;
  for (u32 level = SCX_PULSE_LEVELS - 1; level >= 1; level--)
    if (now - c->served_ns[level] > AGING_SLICES * s->slice_ns && serve(cpu, c, level, now))
      return true;
  for (u32 level = 0; level < SCX_PULSE_LEVELS && level <= last; level++)
    if (c->waiting[level] && serve(cpu, c, level, now)) return true;
  if (last < SCX_PULSE_LEVELS - 1) return false; /* somebody goes on: the tick looks */
  for (u32 level = 0; level < SCX_PULSE_LEVELS; level++)
    if (serve(cpu, c, level, now)) return true;
  return false;
}

/* A CPU that has work of its own compares queues at most once in each tick. */
static __always_inline bool balance(u32 cpu, struct cpu_state *c, struct scx_pulse_settings *s) {
  u32 here = own_length(cpu, c);
  u64 now = bpf_ktime_get_ns();
  bool rotate = now >= c->rotate_ns;

  queue_lengths[cpu & CPU_MASK] = here;
  if (!pull(cpu, rotate ? here : here + s->imbalance)) return false;
  c->pulled = 1;
  /* Different for each CPU, since otherwise always the same threads would be moved. */
  c->rotate_ns =
      now + ROTATION_SLICES * s->slice_ns + bpf_get_prandom_u32() % (2 * s->slice_ns + 1);
  return true;
}

static __always_inline u32 level_of(struct thread_state *t) {
  u32 priority = t ? t->priority : ASIO_PULSE_PRIORITY_DEFAULT;

  if (local_policy != SCX_PULSE_PRIORITY) return 0;
  if (t && t->kicked_until) return SCX_PULSE_LEVELS - 1;
  return priority >= 750 ? 0 : priority >= 500 ? 1 : priority >= 250 ? 2 : 3;
}

static __always_inline void charge(struct task_struct *p, struct thread_state *t) {
  u64 exec = p->se.sum_exec_runtime;
  u32 weight = p->scx.weight;

  t->vtime += (exec - t->charged_ns) * 100 / (weight ? weight : 100);
  t->charged_ns = exec;
}

/* Keeps a thread's virtual time near that of the queue. */
static __always_inline void keep_near(struct thread_state *t, struct cpu_state *c, u64 slice_ns,
                                      bool slept) {
  u64 low = c->vtime - slice_ns * (slept ? 1 : LAG_SLICES);
  u64 high = c->vtime + slice_ns * LAG_SLICES;

  if ((s64)(t->vtime - low) < 0) t->vtime = low;
  if ((s64)(t->vtime - high) > 0) t->vtime = high;
}

/* Policy fair: whether the running thread has had less than the first one that waits. Without this
 * check two threads would alternate, whatever their weights. */
static __always_inline bool had_less(struct task_struct *prev, struct thread_state *t, u32 cpu,
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

#endif
