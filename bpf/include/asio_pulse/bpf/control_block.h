/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The control block: how a scheduler and a program that runs handlers exchange information about a
 * worker thread. It is memory that three parties share: the sched_ext program, its loader, and the
 * asio-pulse runtime. For C, C++ and clang's BPF target.
 *
 * A process gets one array of asio_pulse_slot_count elements of 128 bytes. Element 0 is the
 * system's block (struct asio_pulse_system), every other one a worker's (struct asio_pulse_scb).
 *
 * Trust: the program can write the memory. The runtime trusts the kernel's half, since a program
 * can only deceive itself. The kernel trusts nothing here: its decisions are based on its own
 * memory, and it reads each word of the runtime's half once and limits the value.
 *
 * Every word is naturally aligned and is written as a whole by one side, unless stated otherwise.
 * The byte order is that of the machine. A change of layout or meaning changes the version.
 */
#ifndef ASIO_PULSE_BPF_CONTROL_BLOCK_H
#define ASIO_PULSE_BPF_CONTROL_BLOCK_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Both sides compare it for equality when a program says hello (see protocol.h). */
#define ASIO_PULSE_ABI_VERSION 1u

#define ASIO_PULSE_SCB_BYTES 128u
#define ASIO_PULSE_SLOT_COUNT 129u /* of one process: the system's, and 128 workers' */
#define ASIO_PULSE_PRIORITY_MOST 1000u
#define ASIO_PULSE_PRIORITY_DEFAULT 500u
#define ASIO_PULSE_PRESSURE_MOST 100u

/* What the scheduler may do. */
enum asio_pulse_mode {
  ASIO_PULSE_MODE_OBSERVER_ONLY = 0, /* it hints; nothing is ever forced */
  ASIO_PULSE_MODE_ENFORCED = 1,      /* it escalates against workers that agreed to it */
  ASIO_PULSE_MODE_NONE = 255         /* no scheduler of ours writes this block */
};

/* The state of a worker. There are hints and escalations only in RUNNING. */
enum asio_pulse_worker_state {
  ASIO_PULSE_WORKER_INIT = 0,       /* not assigned */
  ASIO_PULSE_WORKER_REGISTERED = 1, /* assigned to a thread that is not in the scheduler yet */
  ASIO_PULSE_WORKER_RUNNING = 2,    /* the scheduler schedules it */
  ASIO_PULSE_WORKER_QUIESCING = 3,  /* it is leaving */
  ASIO_PULSE_WORKER_DEAD = 4        /* its thread has ended, or left the scheduler */
};

/* What the worker permits if it ignores a hint. */
enum asio_pulse_policy {
  ASIO_PULSE_POLICY_NONE = 0,
  ASIO_PULSE_POLICY_THREAD_KICK = 1,     /* its slice ends now, and the next ones are shorter */
  ASIO_PULSE_POLICY_CGROUP_THROTTLE = 2, /* it is held to a share of the CPU for a while */
  ASIO_PULSE_POLICY_HYBRID = 3           /* the first, and if that is ignored too, the second */
};

/* Why the worker acknowledged. */
enum asio_pulse_yield_reason {
  ASIO_PULSE_YIELD_NONE = 0,
  ASIO_PULSE_YIELD_CHECKPOINT = 1, /* a checkpoint yielded */
  ASIO_PULSE_YIELD_DEFERRED = 2,   /* the gate put an operation back */
  ASIO_PULSE_YIELD_POLL_END = 3,   /* the handler ended by itself, so others have their turn */
  ASIO_PULSE_YIELD_IDLE = 4,       /* there was no handler to run */
  ASIO_PULSE_YIELD_REFUSED = 5     /* a checkpoint could not yield: under a lock */
};

/* How the runtime reacts to hints at present; for operators. */
enum asio_pulse_determinism {
  ASIO_PULSE_DETERMINISTIC = 0, /* no recent hint: it behaves as without a scheduler */
  ASIO_PULSE_PRESSURED = 1,     /* there are hints */
  ASIO_PULSE_DEFENSIVE = 2      /* hints were lost: it yields eagerly */
};

/* A worker. The kernel writes the first 64 bytes, the runtime the others.
 *
 * CPU time: the first three words are a sequence lock (timing::published_cpu_time). The sequence is
 * odd while they change, and stays odd when they are no longer published. While it has the same
 * even value, the thread has not left its CPU.
 */
struct asio_pulse_scb {
  /* ---- line 0: written by the scheduler */
  uint64_t cpu_sequence; /* +2 each time the thread is given a CPU */
  uint64_t run_ns;       /* CPU time before the current run */
  uint64_t run_start_ns; /* CLOCK_MONOTONIC at the start of the current run */
  uint64_t preempt_seq;  /* +1 for each hint. Written before the hint's record is sent */
  int64_t budget_ns;     /* advisory: what is left of the slice at the last look; negative: overrun */
  uint32_t lost_hints;   /* records that did not fit into the ring buffer; preempt_seq has changed anyway */
  uint8_t worker_state;  /* enum asio_pulse_worker_state */
  uint8_t pressure;      /* 0..100: derived by the scheduler from that of the system */
  uint8_t mode;          /* enum asio_pulse_mode */
  uint8_t kernel_pad;
  uint32_t escalations;  /* against this worker */
  uint32_t violations;   /* critical sections beyond the limit: after one, the critical flag does not
                            protect until the worker has slept or acknowledged */
  uint64_t kernel_reserved;

  /* ---- line 1: written by the runtime with plain stores; the kernel reads each word once */
  uint64_t last_ack_seq; /* the preempt_seq to which the worker has reacted; never above it */
  uint64_t acks;         /* acknowledgements so far */
  uint16_t priority;     /* advisory, 0..1000, higher is more urgent */
  uint8_t critical;      /* not 0: in a critical section */
  uint8_t escapable;     /* not 0: it may be escalated against */
  uint8_t policy;        /* enum asio_pulse_policy */
  uint8_t yield_reason;  /* enum asio_pulse_yield_reason, of the last acknowledgement */
  uint8_t determinism;   /* enum asio_pulse_determinism */
  uint8_t runtime_pad[41];
};

/* Element 0 of the array: what the loader publishes for all workers of a process. Only the loader
 * writes it, each word separately. */
struct asio_pulse_system {
  uint32_t abi_version;    /* ASIO_PULSE_ABI_VERSION */
  uint8_t mode;            /* enum asio_pulse_mode */
  uint8_t cpu_pressure;    /* 0..100: PSI "some" over 10 s, in per cent */
  uint8_t io_pressure;     /* the same */
  uint8_t memory_pressure; /* the same */
  uint32_t queued;         /* threads that wait in the scheduler's queues now, over all CPUs */
  uint32_t cpus;           /* CPUs that the scheduler serves */
  uint64_t slice_ns;
  uint64_t grace_ns;
  uint64_t max_critical_ns;
  uint64_t updated_ns; /* CLOCK_MONOTONIC: when the loader wrote last; at least once a second */
  uint8_t reserved[80];
};

/* The kind of a record of the ring buffer. */
enum asio_pulse_hint_kind {
  ASIO_PULSE_HINT = 1,        /* preempt_seq has changed */
  ASIO_PULSE_KICKED = 2,      /* escalation: THREAD_KICK */
  ASIO_PULSE_THROTTLED = 3,   /* escalation: CGROUP_THROTTLE */
  ASIO_PULSE_RELEASED = 4,    /* the effect of an escalation was undone */
  ASIO_PULSE_VIOLATION = 5    /* a critical section beyond the limit; it is no longer protected */
};

/* A record of the ring buffer, for the loader. */
struct asio_pulse_hint {
  uint64_t time_ns; /* CLOCK_MONOTONIC */
  uint64_t seq;     /* preempt_seq */
  uint64_t ran_ns;  /* CPU time since the worker last slept, yielded or acknowledged */
  uint32_t tgid;
  uint32_t tid;
  uint16_t slot;
  uint8_t kind;     /* enum asio_pulse_hint_kind */
  uint8_t policy;   /* enum asio_pulse_policy, of an escalation */
  uint32_t cpu;
};

#ifdef __cplusplus
#define ASIO_PULSE_ABI_ASSERT(condition) static_assert(condition, #condition)
#else
#define ASIO_PULSE_ABI_ASSERT(condition) _Static_assert(condition, #condition)
#endif

ASIO_PULSE_ABI_ASSERT(sizeof(struct asio_pulse_scb) == ASIO_PULSE_SCB_BYTES);
ASIO_PULSE_ABI_ASSERT(sizeof(struct asio_pulse_system) == ASIO_PULSE_SCB_BYTES);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, cpu_sequence) == 0);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, run_ns) == 8);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, run_start_ns) == 16);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, preempt_seq) == 24);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, budget_ns) == 32);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, lost_hints) == 40);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, worker_state) == 44);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, pressure) == 45);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, mode) == 46);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, escalations) == 48);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, violations) == 52);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, kernel_reserved) == 56);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, last_ack_seq) == 64);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, acks) == 72);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, priority) == 80);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, critical) == 82);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, escapable) == 83);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, policy) == 84);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, yield_reason) == 85);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_scb, determinism) == 86);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_system, mode) == 4);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_system, queued) == 8);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_system, slice_ns) == 16);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_system, updated_ns) == 40);
ASIO_PULSE_ABI_ASSERT(sizeof(struct asio_pulse_hint) == 40);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_hint, tgid) == 24);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_hint, kind) == 34);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
