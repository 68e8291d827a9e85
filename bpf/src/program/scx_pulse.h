/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * Private to scx_pulse.bpf.c and its loader: settings, registrations, counts.
 */
#ifndef ASIO_PULSE_SCX_PULSE_H
#define ASIO_PULSE_SCX_PULSE_H

#include <asio_pulse/bpf/control_block.h>

#define SCX_PULSE_MOST_CPUS 512u
#define SCX_PULSE_MOST_WORKERS 16384u
#define SCX_PULSE_MOST_PROCESSES 1024u
#define SCX_PULSE_USER_HZ 100u /* unit of the start times that the kernel shows to programs */

/* The only element of the map `settings`. It may be changed while the scheduler runs. */
struct scx_pulse_settings {
  uint64_t slice_ns;
  uint64_t grace_ns;
  uint64_t max_critical_ns;
  uint64_t throttle_ns;      /* how long a throttle, or a kick's shorter slices, last */
  uint32_t throttle_percent; /* of one CPU: the share of a throttled worker */
  uint32_t mode;             /* enum asio_pulse_mode */
  uint32_t imbalance;        /* threads: a queue longer by more, a busy CPU helps at once; and now
                                and then any longer one, so that nobody is worse off for ever */
  uint32_t pressure;         /* 0..100, copied into the control blocks */
};

/* A thread id identifies a thread only together with its thread group and start time. */
struct scx_pulse_registration {
  uint64_t start_ticks; /* field 22 of /proc/PID/task/TID/stat: since boot, in USER_HZ (100) */
  uint32_t tgid;
  uint32_t slot; /* 1 .. ASIO_PULSE_SLOT_COUNT - 1 */
};

/* A value of the map `workers`, whose key is the thread id. The scheduler uses it only if thread
 * group and start time are those of the thread. */
struct scx_pulse_worker {
  struct scx_pulse_registration registration;
  uint64_t serial; /* unique among all registrations, and never 0 */
};

/* How the scheduler has ended, as the kernel reports it. */
struct scx_pulse_exit {
  uint64_t kind; /* enum scx_exit_kind; 0 if it has not ended */
  int64_t code;
  char reason[64];
  char message[256];
};

/* The only element of the per-CPU map `counts`. The values of all CPUs are added up. */
struct scx_pulse_counts {
  uint64_t dispatched;        /* a thread was given a CPU */
  uint64_t enqueued;          /* it had to wait for one */
  uint64_t direct;            /* it was woken onto an idle CPU */
  uint64_t pulled;            /* it was taken over from another CPU's queue */
  uint64_t hints;             /* preempt_seq was changed */
  uint64_t lost_hints;        /* hints without a record */
  uint64_t acknowledged;      /* a hint was acknowledged in time */
  uint64_t kicks;             /* escalations: THREAD_KICK */
  uint64_t throttles;         /* escalations: CGROUP_THROTTLE */
  uint64_t released;          /* effects of escalations undone */
  uint64_t protected_ticks;   /* a slice was refilled for a critical section */
  uint64_t violations;        /* critical sections beyond the limit */
  uint64_t hostile;           /* a control block had an impossible value, which was ignored */
  uint64_t stale;             /* a registration belonged to another thread */
  uint64_t registered;        /* threads that became workers */
  uint64_t ended;             /* workers that ended or left */
};

#endif
