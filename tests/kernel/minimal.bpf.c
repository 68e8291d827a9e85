/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * A minimal scheduler, with which costs are compared: one queue for all CPUs, ordered by virtual
 * time, as in the kernel's own example scx_simple. No hints, no workers, no queues for each CPU.
 */
#include <stdint.h>

#include "program/kernel.bpf.h"

#pragma clang diagnostic ignored "-Wunused-parameter" /* BPF_PROG's context */

char _license[] SEC("license") = "Dual BSD/GPL";

#define SHARED_QUEUE 0
#define SLICE_NS 5000000ULL

s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags,
                           bool *is_idle) __ksym;
bool scx_bpf_task_set_dsq_vtime(struct task_struct *p, u64 vtime) __ksym __weak;

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 2);
  __type(key, u32);
  __type(value, u64);
} stats SEC(".maps");

uint64_t vtime_now;

static __always_inline void count(u32 which) {
  u64 *counted = bpf_map_lookup_elem(&stats, &which);

  if (counted) (*counted)++;
}

static __always_inline void set_vtime(struct task_struct *p, u64 vtime) {
  if (scx_bpf_task_set_dsq_vtime)
    scx_bpf_task_set_dsq_vtime(p, vtime);
  else
    p->scx.dsq_vtime = vtime;
}

SEC("struct_ops/minimal_select")
s32 BPF_PROG(minimal_select, struct task_struct *p, s32 prev_cpu, u64 wake_flags) {
  bool is_idle = false;
  s32 cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &is_idle);

  if (is_idle) {
    count(0);
    dsq_insert(p, SCX_DSQ_LOCAL, SLICE_NS, 0);
  }
  return cpu;
}

SEC("struct_ops/minimal_enqueue")
void BPF_PROG(minimal_enqueue, struct task_struct *p, u64 enq_flags) {
  u64 vtime = p->scx.dsq_vtime;

  count(1);
  if ((s64)(vtime - (vtime_now - SLICE_NS)) < 0) vtime = vtime_now - SLICE_NS;
  dsq_insert_vtime(p, SHARED_QUEUE, SLICE_NS, vtime, enq_flags);
}

SEC("struct_ops/minimal_dispatch")
void BPF_PROG(minimal_dispatch, s32 cpu, struct task_struct *prev) {
  dsq_move_to_local(SHARED_QUEUE);
}

SEC("struct_ops/minimal_running")
void BPF_PROG(minimal_running, struct task_struct *p) {
  u64 vtime = p->scx.dsq_vtime;

  if ((s64)(vtime - vtime_now) > 0) vtime_now = vtime;
}

SEC("struct_ops/minimal_stop")
void BPF_PROG(minimal_stop, struct task_struct *p, bool runnable) {
  set_vtime(p, p->scx.dsq_vtime + (SLICE_NS - p->scx.slice) * 100 / p->scx.weight);
}

SEC("struct_ops/minimal_enable")
void BPF_PROG(minimal_enable, struct task_struct *p) { set_vtime(p, vtime_now); }

SEC("struct_ops/minimal_init")
s32 BPF_PROG(minimal_init) { return scx_bpf_create_dsq(SHARED_QUEUE, -1); }

SEC(".struct_ops")
struct sched_ext_ops minimal = {
    .select_cpu = (void *)minimal_select,
    .enqueue = (void *)minimal_enqueue,
    .dispatch = (void *)minimal_dispatch,
    .running = (void *)minimal_running,
    .stopping = (void *)minimal_stop,
    .enable = (void *)minimal_enable,
    .init = (void *)minimal_init,
    .flags = SCX_OPS_SWITCH_PARTIAL,
    .name = "minimal",
};
