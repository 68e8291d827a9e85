/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The sched_ext program. It sends hints first, and acts only against workers that have agreed to it
 * and ignore hints.
 *
 * It schedules only threads with the policy SCHED_EXT. A thread that is not registered as a worker
 * gets no hints, is never escalated against, and nothing is published about it.
 *
 * Queues. Each CPU has its own: those of the policy (policies.h), and one for threads that are
 * limited to a share. A thread waits for the CPU on which it ran last. There is no global queue.
 * The cost of an operation depends on the number of CPUs (when a CPU looks for work elsewhere), but
 * not on the number of threads. There is one exception, in the kernel: when a thread is taken from
 * another CPU's queue, threads that may not run here are skipped one by one.
 *
 * What it does not do:
 * - Preempt on wakeup. A woken thread waits for an idle CPU or for its turn.
 * - Preempt threads of the fair class, which come first with every sched_ext scheduler. A thread of
 *   ours that they preempt stays on its CPU until they are done.
 * - Take account of groups, hyperthreads or NUMA nodes. CPUs are near each other if they share a
 *   cache; the loader says which do.
 * - Protect a critical section from the fair class, from interrupts, or from blocking.
 *
 * Races that it accepts: a thread that is queued just while a CPU becomes idle is taken over at the
 * next tick of its own CPU, and not at once. Lengths of queues may be out of date. An escalation
 * may hit a worker that acknowledges at the same moment; it is then undone at the next tick. A
 * worker that is removed just while it gets a CPU may publish that once, after the loader has
 * retired its block.
 */
/* clang-format off: the types come first */
#include "kernel.bpf.h"
#include "scx_pulse.h"
/* clang-format on */

#pragma clang diagnostic ignored "-Wunused-parameter" /* BPF_PROG's context */

char _license[] SEC("license") = "Dual BSD/GPL";

/* How the scheduler has ended, for the loader. */
struct scx_pulse_exit exit_info;

/* clang-format off: each uses those before it */
#include "worker.bpf.h"
#include "cpu.bpf.h"
#include "policies.h"
#include "queues.bpf.h"
/* clang-format on */

/* How many near CPUs are checked one by one for a waking thread. */
#define NEAR_CPUS 32

/* The interval at which held threads are checked, while there are some. */
#define HOLD_CHECK_NS 1000000ULL

static __always_inline struct thread_state *begin(struct task_struct *p) {
  struct thread_state *t = begin_state(p);

  if (t) policy_begin(p, t);
  return t;
}

SEC("struct_ops/scx_pulse_select_cpu")
s32 BPF_PROG(scx_pulse_select_cpu, struct task_struct *p, s32 prev_cpu, u64 wake_flags) {
  struct scx_pulse_settings *s = the_settings();
  const struct cpumask *allowed = p->cpus_ptr;
  u32 domain = cpu_domain[prev_cpu & CPU_MASK] & CPU_MASK;
  u32 size = domain_size[domain];
  s32 cpu = prev_cpu;

  if (!s) return prev_cpu;
  if (bpf_cpumask_test_cpu(prev_cpu, allowed) && scx_bpf_test_and_clear_cpu_idle(prev_cpu))
    goto idle;
  if (nr_domains > 1) {
    for (u32 i = 0; i < NEAR_CPUS && i < size; i++) {
      cpu = domain_cpus[(domain_first[domain] + i) & CPU_MASK];
      if (bpf_cpumask_test_cpu(cpu, allowed) && scx_bpf_test_and_clear_cpu_idle(cpu)) goto idle;
    }
  }
  cpu = scx_bpf_pick_idle_cpu(allowed, 0);
  if (cpu < 0) return prev_cpu;
idle:
  policy_direct(p, cpu, s);
  dsq_insert(p, SCX_DSQ_LOCAL, s->slice_ns, 0);
  COUNT(direct);
  return cpu;
}

SEC("struct_ops/scx_pulse_enqueue")
void BPF_PROG(scx_pulse_enqueue, struct task_struct *p, u64 enq_flags) {
  struct scx_pulse_settings *s = the_settings();
  struct thread_state *t = state_of(p);
  u32 cpu = scx_bpf_task_cpu(p);
  struct cpu_state *c;
  u64 slice, now;

  c = bpf_map_lookup_elem(&cpus, &cpu);
  if (!s || !c) return;
  slice = slice_of(t, s);
  if (t && t->throttled_until) {
    now = bpf_ktime_get_ns();
    /* Only if the timer runs, so that it is released again. */
    if (over_its_share(p, t, s, now) && !bpf_timer_start(&c->timer, HOLD_CHECK_NS, 0)) {
      dsq_insert(p, QUEUE_OF(cpu, QUEUE_HELD), slice, enq_flags);
      return;
    }
  }
  if (enq_flags & SCX_ENQ_LAST) {
    dsq_insert(p, SCX_DSQ_LOCAL, slice, enq_flags);
    return;
  }
  if (t && t->critical_ns && !t->revoked && !t->gives_way && !(enq_flags & SCX_ENQ_WAKEUP)) {
    /* Its slice has ended before a tick could refill it, and a thread of the fair class has
     * preempted it. It continues after that one, and the next tick checks its limit again. */
    dsq_insert(p, SCX_DSQ_LOCAL, slice, enq_flags);
    return;
  }
  COUNT(enqueued);
  policy_enqueue(p, t, cpu, c, s, slice, enq_flags);
}

SEC("struct_ops/scx_pulse_dispatch")
void BPF_PROG(scx_pulse_dispatch, s32 cpu_signed, struct task_struct *prev) {
  struct scx_pulse_settings *s = the_settings();
  u32 cpu = cpu_signed;
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
  bool stays = prev && (prev->scx.flags & SCX_TASK_QUEUED); /* it wants to go on */
  struct thread_state *t = NULL, *competitor = NULL;

  if (!s || !c) return;
  if (c->balance) {
    c->balance = 0;
    if (balance(cpu, c, s)) return;
  }
  if (policy_compares() && stays) {
    /* It is in no queue now, so it is compared with the threads that are. */
    t = state_of(prev);
    if (t && t->gives_way)
      t->gives_way = 0;
    else if (t && !t->throttled_until)
      competitor = t;
  }
  if (policy_dispatch(cpu, c, s, prev, competitor)) return;
  queue_lengths[cpu & CPU_MASK] = 0;
  if (stays) {
    /* No thread waits here, so it continues with a new slice, unless it is over its share. In that
     * case the kernel enqueues it with SCX_ENQ_LAST, and this CPU becomes idle. */
    if (!t) t = state_of(prev);
    if (!t || !t->throttled_until || !over_its_share(prev, t, s, bpf_ktime_get_ns())) {
      set_slice(prev, slice_of(t, s));
      return;
    }
  }
  if (pull(cpu, 0)) c->pulled = 1;
}

SEC("struct_ops/scx_pulse_running")
void BPF_PROG(scx_pulse_running, struct task_struct *p) {
  struct thread_state *t = state_of(p);
  struct asio_pulse_scb *b;

  COUNT(dispatched);
  if (!t) t = begin(p);
  if (!t) return;
  if (t->generation != generation) look_for(p, t);
  policy_running(t);
  if (!t->serial) return;
  b = block_of(p, t);
  if (b) publish(p, t, b);
}

SEC("struct_ops/scx_pulse_tick")
void BPF_PROG(scx_pulse_tick, struct task_struct *p) {
  struct scx_pulse_settings *s = the_settings();
  u32 cpu = bpf_get_smp_processor_id();
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
  struct thread_state *t = state_of(p);
  u32 queued;
  s32 idle;

  if (!s || !c) return;
  c->balance = 1;
  queued = policy_length(cpu, c);
  queue_lengths[cpu & CPU_MASK] = queued;
  if (queued) {
    idle = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
    if (idle >= 0) scx_bpf_kick_cpu(idle, SCX_KICK_IDLE);
  }
  if (!t) return;
  if (t->generation != generation) {
    look_for(p, t);
    if (t->serial) {
      /* It has become a worker while it runs. From here on its CPU time is published. */
      struct asio_pulse_scb *b = block_of(p, t);

      if (b) publish(p, t, b);
    }
  }
  if (t->serial) worker_tick(p, t, s);
}

/* The thread is no longer runnable. Its slice begins anew only after a sleep, not after a change of
 * affinity. */
SEC("struct_ops/scx_pulse_quiescent")
void BPF_PROG(scx_pulse_quiescent, struct task_struct *p, u64 deq_flags) {
  struct thread_state *t;
  struct asio_pulse_scb *b;

  if (!(deq_flags & SCX_DEQ_SLEEP)) return;
  t = state_of(p);
  if (!t || !t->serial) return;
  if (t->hint_ns) {
    b = block_of(p, t);
    if (b) read_ack(p, t, b);
  }
  begin_anew(p, t);
  t->critical_ns = 0;
}

/* sched_yield(): others get their turn, and the slice begins anew. A hint stays outstanding, since
 * otherwise a loop around sched_yield() would never have to acknowledge one. */
SEC("struct_ops/scx_pulse_yield")
bool BPF_PROG(scx_pulse_yield, struct task_struct *from, struct task_struct *to) {
  struct thread_state *t = state_of(from);

  set_slice(from, 0);
  if (t) {
    t->base_ns = from->se.sum_exec_runtime;
    t->gives_way = 1;
  }
  return false;
}

/* The thread has become SCHED_EXT. If there is no memory for its state, running() tries again.
 * Until then it is treated as a thread that is not a worker. */
SEC("struct_ops/scx_pulse_enable")
void BPF_PROG(scx_pulse_enable, struct task_struct *p) { begin(p); }

/* The thread is no longer SCHED_EXT, or this scheduler ends. It is still registered as a worker. */
SEC("struct_ops/scx_pulse_disable")
void BPF_PROG(scx_pulse_disable, struct task_struct *p) {
  struct thread_state *t = state_of(p);
  struct asio_pulse_scb *b;

  if (!t) return;
  if (t->generation != generation) look_for(p, t); /* its slot may be another's by now */
  if (!t->serial) return;
  begin_anew(p, t);
  t->critical_ns = 0;
  b = block_of(p, t);
  if (b) publish_end(t, b, ASIO_PULSE_WORKER_REGISTERED);
}

/* The thread has ended, or this scheduler ends, and its registration is removed. The kernel calls
 * this for all threads, and late, so that another thread may have the same id by now. */
SEC("struct_ops/scx_pulse_exit_task")
void BPF_PROG(scx_pulse_exit_task, struct task_struct *p, struct scx_exit_task_args *args) {
  struct thread_state *t = state_of(p);
  u32 tid = p->pid, tgid = p->tgid;
  struct scx_pulse_worker *w;
  struct asio_pulse_scb *b;

  w = bpf_map_lookup_elem(&workers, &tid);
  if (!w || w->registration.tgid != tgid ||
      w->registration.start_ticks != p->start_boottime / (1000000000ULL / SCX_PULSE_USER_HZ))
    return;
  b = block_at(tgid, w->registration.slot);
  if (b) {
    if (t && t->serial == w->serial)
      publish_end(t, b, ASIO_PULSE_WORKER_DEAD);
    else
      ONCE(b->worker_state) = ASIO_PULSE_WORKER_DEAD;
  }
  if (t) t->serial = 0;
  bpf_map_delete_elem(&workers, &tid);
  COUNT(ended);
}

/* Moves threads that have waited for long enough back into their CPU's queue. There cannot be many:
 * each had to run for a tick before it was held, and stays at most LONGEST_HOLD_NS. (The loop has
 * no counter, because the verifier would follow all of its values.) */
static int release_held(void *map, u32 *key, struct cpu_state *c) {
  u32 cpu = *key & CPU_MASK;
  u64 now = bpf_ktime_get_ns();
  struct bpf_iter_scx_dsq it;
  struct task_struct *p;

  bpf_rcu_read_lock(); /* this is init()'s callback, and that is sleepable */
  if (bpf_iter_scx_dsq_new(&it, QUEUE_OF(cpu, QUEUE_HELD), 0) == 0) {
    while ((p = bpf_iter_scx_dsq_next(&it))) {
      struct thread_state *t = state_of(p);

      if (t && t->release_ns > now) continue;
      policy_release(&it, p, cpu, c);
    }
  }
  bpf_iter_scx_dsq_destroy(&it);
  bpf_rcu_read_unlock();
  if (queue_length(cpu) > 0) scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
  if (scx_bpf_dsq_nr_queued(QUEUE_OF(cpu, QUEUE_HELD)) > 0)
    bpf_timer_start(&c->timer, HOLD_CHECK_NS, 0);
  return 0;
}

/* A function of its own, so that the loop's counter stays in a register, where the verifier can
 * follow it. With the counter on the stack it would follow millions of paths. */
static __noinline int init_cpu(u32 cpu) {
  struct cpu_state *c = bpf_map_lookup_elem(&cpus, &cpu);
  u32 queues = policy_queues();
  int error;

  if (!c) return -1;
  for (u32 which = 0; which < QUEUE_HELD && which < queues; which++) {
    error = scx_bpf_create_dsq(QUEUE_OF(cpu, which), -1);
    if (error) return error;
  }
  error = scx_bpf_create_dsq(QUEUE_OF(cpu, QUEUE_HELD), -1);
  if (error) return error;
  if (bpf_timer_init(&c->timer, &cpus, 1 /* CLOCK_MONOTONIC */)) return -1;
  return bpf_timer_set_callback(&c->timer, release_held) ? -1 : 0;
}

/* The loader makes this program sleepable, because it creates queues. */
SEC("struct_ops/scx_pulse_init")
s32 BPF_PROG(scx_pulse_init) {
  for (u32 cpu = 0; cpu < SCX_PULSE_MOST_CPUS && cpu < nr_cpus; cpu++) {
    int error = init_cpu(cpu);

    if (error) return error;
  }
  return 0;
}

SEC("struct_ops/scx_pulse_exit")
void BPF_PROG(scx_pulse_exit, struct scx_exit_info *info) {
  bpf_probe_read_kernel_str(exit_info.reason, sizeof(exit_info.reason), info->reason);
  bpf_probe_read_kernel_str(exit_info.message, sizeof(exit_info.message), info->msg);
  exit_info.code = info->exit_code;
  barrier();
  ONCE(exit_info.kind) = info->kind; /* last: the loader takes it for the sign that it is over */
}

SEC(".struct_ops")
struct sched_ext_ops scx_pulse = {
    .select_cpu = (void *)scx_pulse_select_cpu,
    .enqueue = (void *)scx_pulse_enqueue,
    .dispatch = (void *)scx_pulse_dispatch,
    .tick = (void *)scx_pulse_tick,
    .running = (void *)scx_pulse_running,
    .quiescent = (void *)scx_pulse_quiescent,
    .yield = (void *)scx_pulse_yield,
    .enable = (void *)scx_pulse_enable,
    .disable = (void *)scx_pulse_disable,
    .exit_task = (void *)scx_pulse_exit_task,
    .init = (void *)scx_pulse_init,
    .exit = (void *)scx_pulse_exit,
    .flags = SCX_OPS_SWITCH_PARTIAL | SCX_OPS_ENQ_LAST,
    .name = "scx_pulse",
};
