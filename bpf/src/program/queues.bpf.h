/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The queues of scx_pulse.bpf.c: how long they are, and when a CPU takes over a thread from another
 * one. How the threads of a CPU take turns is up to the policy. Only scx_pulse.bpf.c includes this
 * file, after policies.h.
 */
#ifndef ASIO_PULSE_QUEUES_BPF_H
#define ASIO_PULSE_QUEUES_BPF_H

/* Set by the loader before the program is loaded: enum scx_pulse_local_policy. The verifier knows
 * it, and removes the code of the other policies. */
const volatile uint32_t local_policy = 0;

#define FITS_(NAME, name, text, ...) \
  _Static_assert((u32)name##_queues <= QUEUE_HELD, "a CPU has no more queues");
SCX_PULSE_POLICIES(FITS_, )

/* Calls a function of the policy, and returns what that returns. */
#define CASE_(NAME, name, text, function, ...) \
  case SCX_PULSE_##NAME:                       \
    return name##_##function(__VA_ARGS__);
#define RETURN_BY_POLICY(function, ...) \
  switch (local_policy) { SCX_PULSE_POLICIES(CASE_, function, __VA_ARGS__) }

static __always_inline void policy_begin(struct task_struct *p, struct thread_state *t) {
  RETURN_BY_POLICY(begin, p, t)
}

static __always_inline void policy_direct(struct task_struct *p, u32 cpu,
                                          struct scx_pulse_settings *s) {
  RETURN_BY_POLICY(direct, p, cpu, s)
}

static __always_inline void policy_enqueue(struct task_struct *p, struct thread_state *t, u32 cpu,
                                           struct cpu_state *c, struct scx_pulse_settings *s,
                                           u64 slice, u64 enq_flags) {
  RETURN_BY_POLICY(enqueue, p, t, cpu, c, s, slice, enq_flags)
}

static __always_inline bool policy_dispatch(u32 cpu, struct cpu_state *c,
                                            struct scx_pulse_settings *s, struct task_struct *prev,
                                            struct thread_state *competitor) {
  RETURN_BY_POLICY(dispatch, cpu, c, s, prev, competitor)
  return false;
}

static __always_inline void policy_running(struct thread_state *t) { RETURN_BY_POLICY(running, t) }

static __always_inline u32 policy_length(u32 cpu, struct cpu_state *c) {
  RETURN_BY_POLICY(length, cpu, c)
  return 0;
}

static __always_inline void policy_release(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                           u32 cpu, struct cpu_state *c) {
  RETURN_BY_POLICY(release, it, p, cpu, c)
}

#define QUEUES_(NAME, name, text, ...) \
  case SCX_PULSE_##NAME:               \
    return name##_queues;
static __always_inline u32 policy_queues(void) {
  switch (local_policy) { SCX_PULSE_POLICIES(QUEUES_, ) }
  return 0;
}

#define COMPARES_(NAME, name, text, ...) \
  case SCX_PULSE_##NAME:                 \
    return name##_compares;
static __always_inline bool policy_compares(void) {
  switch (local_policy) { SCX_PULSE_POLICIES(COMPARES_, ) }
  return false;
}

/* The length of any CPU's queues. */
#define LENGTH_(NAME, name, text, cpu) \
  case SCX_PULSE_##NAME:               \
    return threads_in(cpu, name##_queues);
static __always_inline u32 queue_length(u32 cpu) {
  switch (local_policy) { SCX_PULSE_POLICIES(LENGTH_, cpu) }
  return 0;
}

/* A permitted imbalance must not disadvantage the same threads for ever. So at this interval a CPU
 * takes over a thread from a longer queue, even if it is longer only by one. A guess: with less
 * there are more migrations; with more, it is less fair if threads cannot be divided equally among
 * CPUs. */
#define ROTATION_SLICES 6

/* A CPU spends at most 1/PULL_PAUSE of its time on taking over threads. The pause is limited,
 * because the machine may have been stopped meanwhile. Guesses. */
#define PULL_PAUSE 32
#define LONGEST_PULL_PAUSE_NS 200000000ULL

/* How many threads wait for each CPU, as it saw at its last tick, or when it last found none. For
 * the loader. */
uint32_t queue_lengths[SCX_PULSE_MOST_CPUS];

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
  u32 queues;
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
  queues = policy_queues();
  for (u32 which = 0; which < queues && !moved; which++)
    moved = dsq_move_to_local(QUEUE_OF(search.busiest, which));
  ended = bpf_ktime_get_ns();
  pause = PULL_PAUSE * (ended - begun);
  c->no_pull_ns = ended + (pause < LONGEST_PULL_PAUSE_NS ? pause : LONGEST_PULL_PAUSE_NS);
  if (moved) COUNT(pulled);
  return moved;
}

/* A CPU that has work of its own compares queues at most once in each tick. */
static __always_inline bool balance(u32 cpu, struct cpu_state *c, struct scx_pulse_settings *s) {
  u32 here = policy_length(cpu, c);
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

#endif
