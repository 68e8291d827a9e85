/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The types and functions of the kernel that scx_pulse.bpf.c uses. Types have only the members that
 * are used, and are relocated with BTF when the object is loaded (CO-RE), so that no vmlinux.h is
 * needed to build it. Functions that not every kernel has are weak, and used if they exist.
 */
#ifndef ASIO_PULSE_KERNEL_BPF_H
#define ASIO_PULSE_KERNEL_BPF_H

#include <linux/bpf.h>
#include <linux/types.h>
#include <stdbool.h>

typedef __u64 u64;
typedef __s64 s64;
typedef __u32 u32;
typedef __s32 s32;
typedef __u16 u16;
typedef __u8 u8;

#include <bpf/bpf_helpers.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct cpumask {
  u64 bits[1];
};

struct sched_entity {
  u64 sum_exec_runtime;
};

struct sched_ext_entity {
  u32 flags;
  u32 weight;
  u64 slice;
  u64 dsq_vtime;
};

struct task_struct {
  s32 pid;
  s32 tgid;
  u64 start_boottime;
  const struct cpumask *cpus_ptr;
  struct sched_entity se;
  struct sched_ext_entity scx;
};

enum scx_exit_kind { SCX_EXIT_NONE = 0 };

struct scx_exit_info {
  enum scx_exit_kind kind;
  s64 exit_code;
  const char *reason;
  char *msg;
};

struct scx_exit_task_args {
  bool cancelled;
};

#pragma clang attribute pop

/* clang 14 writes an unused type into the object's BTF only as a declaration. A function with such
 * a type would match no function of the kernel. */
static struct cpumask used_type __attribute__((used));

/* Passed by value or as a whole, so these have the kernel's layouts and are not relocated. */
struct bpf_iter_scx_dsq {
  u64 opaque[6];
} __attribute__((aligned(8)));

struct scx_bpf_dsq_insert_vtime_args {
  u64 dsq_id;
  u64 slice;
  u64 vtime;
  u64 enq_flags;
};

/* Members that every kernel has. They are matched by name, and loading fails if one is missing. */
struct sched_ext_ops {
  s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
  void (*enqueue)(struct task_struct *p, u64 enq_flags);
  void (*dispatch)(s32 cpu, struct task_struct *prev);
  void (*tick)(struct task_struct *p);
  void (*running)(struct task_struct *p);
  void (*stopping)(struct task_struct *p, bool runnable);
  void (*quiescent)(struct task_struct *p, u64 deq_flags);
  bool (*yield)(struct task_struct *from, struct task_struct *to);
  void (*enable)(struct task_struct *p);
  void (*disable)(struct task_struct *p);
  void (*exit_task)(struct task_struct *p, struct scx_exit_task_args *args);
  s32 (*init)(void);
  void (*exit)(struct scx_exit_info *info);
  u64 flags;
  char name[128];
};

/* Has had the same value in every kernel so far. Flags that have changed (SCX_ENQ_HEAD) are not
 * used. */
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_ENQ_WAKEUP 1ULL
#define SCX_ENQ_LAST (1ULL << 41)
#define SCX_DEQ_SLEEP 1ULL
#define SCX_KICK_IDLE 1ULL
#define SCX_KICK_PREEMPT 2ULL
#define SCX_TASK_QUEUED 1u
#define SCX_OPS_ENQ_LAST 2ULL
#define SCX_OPS_SWITCH_PARTIAL 8ULL

s32 scx_bpf_create_dsq(u64 dsq_id, s32 node) __ksym;
s32 scx_bpf_dsq_nr_queued(u64 dsq_id) __ksym;
void scx_bpf_kick_cpu(s32 cpu, u64 flags) __ksym;
s32 scx_bpf_pick_idle_cpu(const struct cpumask *allowed, u64 flags) __ksym;
bool scx_bpf_test_and_clear_cpu_idle(s32 cpu) __ksym;
s32 scx_bpf_task_cpu(const struct task_struct *p) __ksym;
bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *cpumask) __ksym;
void bpf_rcu_read_lock(void) __ksym;
void bpf_rcu_read_unlock(void) __ksym;
int bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 dsq_id, u64 flags) __ksym;
struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it) __ksym;
void bpf_iter_scx_dsq_destroy(struct bpf_iter_scx_dsq *it) __ksym;

/* 6.13 and later, and before. */
void scx_bpf_dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 flags) __ksym __weak;
void scx_bpf_dispatch(struct task_struct *p, u64 dsq_id, u64 slice, u64 flags) __ksym __weak;
bool scx_bpf_dsq_move_to_local(u64 dsq_id) __ksym __weak;
bool scx_bpf_consume(u64 dsq_id) __ksym __weak;
bool scx_bpf_dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq_id,
                      u64 flags) __ksym __weak;
bool scx_bpf_dispatch_from_dsq(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq_id,
                               u64 flags) __ksym __weak;
bool scx_bpf_dsq_move_vtime(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq_id,
                            u64 flags) __ksym __weak;
bool scx_bpf_dispatch_vtime_from_dsq(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 dsq_id,
                                     u64 flags) __ksym __weak;
/* 6.19 and later, 6.13 and later, and before. */
bool __scx_bpf_dsq_insert_vtime(struct task_struct *p,
                                struct scx_bpf_dsq_insert_vtime_args *args) __ksym __weak;
void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime,
                              u64 flags) __ksym __weak;
void scx_bpf_dispatch_vtime(struct task_struct *p, u64 dsq_id, u64 slice, u64 vtime,
                            u64 flags) __ksym __weak;
/* 6.19 and later; before, the member is written. */
bool scx_bpf_task_set_slice(struct task_struct *p, u64 slice) __ksym __weak;

static __always_inline void dsq_insert(struct task_struct *p, u64 dsq_id, u64 slice, u64 flags) {
  if (scx_bpf_dsq_insert)
    scx_bpf_dsq_insert(p, dsq_id, slice, flags);
  else
    scx_bpf_dispatch(p, dsq_id, slice, flags);
}

static __always_inline void dsq_insert_vtime(struct task_struct *p, u64 dsq_id, u64 slice,
                                             u64 vtime, u64 flags) {
  if (__scx_bpf_dsq_insert_vtime) {
    struct scx_bpf_dsq_insert_vtime_args args = {
        .dsq_id = dsq_id, .slice = slice, .vtime = vtime, .enq_flags = flags};

    __scx_bpf_dsq_insert_vtime(p, &args);
  } else if (scx_bpf_dsq_insert_vtime) {
    scx_bpf_dsq_insert_vtime(p, dsq_id, slice, vtime, flags);
  } else {
    scx_bpf_dispatch_vtime(p, dsq_id, slice, vtime, flags);
  }
}

static __always_inline bool dsq_move_to_local(u64 dsq_id) {
  return scx_bpf_dsq_move_to_local ? scx_bpf_dsq_move_to_local(dsq_id) : scx_bpf_consume(dsq_id);
}

static __always_inline bool dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                     u64 dsq_id) {
  return scx_bpf_dsq_move ? scx_bpf_dsq_move(it, p, dsq_id, 0)
                          : scx_bpf_dispatch_from_dsq(it, p, dsq_id, 0);
}

static __always_inline bool dsq_move_vtime(struct bpf_iter_scx_dsq *it, struct task_struct *p,
                                           u64 dsq_id) {
  return scx_bpf_dsq_move_vtime ? scx_bpf_dsq_move_vtime(it, p, dsq_id, 0)
                                : scx_bpf_dispatch_vtime_from_dsq(it, p, dsq_id, 0);
}

/* For the task that runs here, or that dispatch() is asked to replace. */
static __always_inline void set_slice(struct task_struct *p, u64 slice) {
  if (scx_bpf_task_set_slice)
    scx_bpf_task_set_slice(p, slice);
  else
    p->scx.slice = slice;
}

#endif
