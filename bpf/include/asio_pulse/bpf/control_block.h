/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The control block: what a scheduler and a program that runs handlers tell each other about one
 * worker thread. Shared memory between three parties: the sched_ext program, its loader, and the
 * asio-pulse runtime. C and C++, and clang's BPF target.
 *
 * A process gets one array of asio_pulse_slot_count elements of 128 bytes. Element 0 is the
 * system's block (struct asio_pulse_system), every other one a worker's (struct asio_pulse_scb).
 *
 * Who may believe what: the memory is writable by the program. The runtime trusts the kernel's half,
 * for the program can only deceive itself. The kernel trusts nothing here: what it decides on is in
 * its own memory, and what it reads from the runtime's half it reads once and clamps.
 *
 * Every word is naturally aligned and written whole, by one side, except where said otherwise.
 * 64-bit words in the machine's byte order. Changes of layout or meaning change the version.
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

/* Where a worker stands. Hints and escalation only in RUNNING. */
enum asio_pulse_worker_state {
  ASIO_PULSE_WORKER_INIT = 0,       /* nobody's */
  ASIO_PULSE_WORKER_REGISTERED = 1, /* a thread's, which is not scheduled by us yet */
  ASIO_PULSE_WORKER_RUNNING = 2,    /* scheduled by us */
  ASIO_PULSE_WORKER_QUIESCING = 3,  /* it is leaving */
  ASIO_PULSE_WORKER_DEAD = 4        /* its thread has ended, or was taken away from us */
};

/* What the worker agrees to, should it ignore a hint. */
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
  ASIO_PULSE_YIELD_POLL_END = 3,   /* the handler ended by itself: others have their turn */
  ASIO_PULSE_YIELD_IDLE = 4,       /* there was no handler to run */
  ASIO_PULSE_YIELD_REFUSED = 5     /* a checkpoint could not yield: under a lock */
};

/* How the runtime behaves, told for the eyes of an operator. */
enum asio_pulse_determinism {
  ASIO_PULSE_DETERMINISTIC = 0, /* no hint has been seen: as without a scheduler */
  ASIO_PULSE_PRESSURED = 1,     /* hints come */
  ASIO_PULSE_DEFENSIVE = 2      /* hints were lost: it yields eagerly */
};

/* One worker. The first 64 bytes are the kernel's to write, the others the runtime's.
 *
 * CPU time: the first three words are a sequence lock (timing::published_cpu_time). The sequence is
 * odd while they change, and stays odd when nobody publishes any more. While it stands still at an
 * even value the thread has not left its CPU.
 */
struct asio_pulse_scb {
  /* ---- line 0: written by the scheduler */
  uint64_t cpu_sequence; /* +2 each time the thread is given a CPU */
  uint64_t run_ns;       /* CPU time before the present run */
  uint64_t run_start_ns; /* CLOCK_MONOTONIC at the start of the present run */
  uint64_t preempt_seq;  /* +1 for each hint. Written before the hint's record is sent */
  int64_t budget_ns;     /* advisory: what is left of the slice at the last look; negative: overrun */
  uint32_t lost_hints;   /* records that did not fit the ring buffer; the sequence moved all the same */
  uint8_t worker_state;  /* enum asio_pulse_worker_state */
  uint8_t pressure;      /* 0..100: what the scheduler makes of the system's */
  uint8_t mode;          /* enum asio_pulse_mode */
  uint8_t kernel_pad;
  uint32_t escalations;  /* against this worker */
  uint32_t violations;   /* critical sections beyond the bound: from the first one on the critical
                            flag protects no more until the worker has slept or acknowledged */
  uint64_t kernel_reserved;

  /* ---- line 1: written by the runtime. Plain stores; the kernel reads each once */
  uint64_t last_ack_seq; /* the preempt_seq that has been acted upon; never above it */
  uint64_t acks;         /* acknowledgements so far */
  uint16_t priority;     /* advisory, 0..1000, higher is more urgent */
  uint8_t critical;      /* not 0: in a critical section */
  uint8_t escapable;     /* not 0: it may be escalated against */
  uint8_t policy;        /* enum asio_pulse_policy */
  uint8_t yield_reason;  /* enum asio_pulse_yield_reason, of the last acknowledgement */
  uint8_t determinism;   /* enum asio_pulse_determinism */
  uint8_t runtime_pad[41];
};

/* What the loader tells all workers of a process: element 0 of the array. Written by the loader
 * only, every word by itself. */
struct asio_pulse_system {
  uint32_t abi_version;    /* ASIO_PULSE_ABI_VERSION */
  uint8_t mode;            /* enum asio_pulse_mode */
  uint8_t cpu_pressure;    /* 0..100: PSI "some" over 10 s, in per cent */
  uint8_t io_pressure;     /* the same */
  uint8_t memory_pressure; /* the same */
  uint32_t queued;         /* threads that wait in the scheduler's queues now, over all CPUs */
  uint32_t cpus;           /* that the scheduler serves */
  uint64_t slice_ns;
  uint64_t grace_ns;
  uint64_t max_critical_ns;
  uint64_t updated_ns; /* CLOCK_MONOTONIC: when the loader wrote last; at least once a second */
  uint8_t reserved[80];
};

/* What a record of the ring buffer is about. */
enum asio_pulse_hint_kind {
  ASIO_PULSE_HINT = 1,        /* preempt_seq moved */
  ASIO_PULSE_KICKED = 2,      /* escalation: THREAD_KICK */
  ASIO_PULSE_THROTTLED = 3,   /* escalation: CGROUP_THROTTLE */
  ASIO_PULSE_RELEASED = 4,    /* the effect of an escalation has been undone */
  ASIO_PULSE_VIOLATION = 5    /* a critical section beyond the bound: its trust is revoked */
};

/* One record of the ring buffer, for the loader. */
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
