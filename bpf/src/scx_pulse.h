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
#define SCX_PULSE_USER_HZ 100u /* of start times as the kernel tells them to programs */
#define SCX_PULSE_LEVELS 4u    /* of priority */

/* How the threads that share a CPU take turns. */
enum scx_pulse_local_policy {
  SCX_PULSE_ROUND_ROBIN = 0,
  SCX_PULSE_PRIORITY = 1, /* by asio_pulse_scb.priority, with aging */
  SCX_PULSE_FAIR = 2      /* by virtual time */
};

/* The one element of the map `settings`: may be changed while the scheduler runs. */
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

/* A thread's number says who it is only together with its thread group and start time. */
struct scx_pulse_registration {
  uint64_t start_ticks; /* field 22 of /proc/PID/task/TID/stat: since boot, in USER_HZ (100) */
  uint32_t tgid;
  uint32_t slot; /* 1 .. ASIO_PULSE_SLOT_COUNT - 1 */
};

/* Value of the map `workers`, whose key is the thread's number. The scheduler believes it only if
 * thread group and start time are those of the thread that it finds. */
struct scx_pulse_worker {
  struct scx_pulse_registration registration;
  uint64_t serial; /* no two registrations have the same, 0 is none's */
};

/* How the scheduler ended, in the kernel's words. */
struct scx_pulse_exit {
  uint64_t kind; /* enum scx_exit_kind. 0: it has not */
  int64_t code;
  char reason[64];
  char message[256];
};

/* The one element of the per-CPU map `counts`: to be added up. */
struct scx_pulse_counts {
  uint64_t dispatched;        /* a thread was given a CPU */
  uint64_t enqueued;          /* it had to wait for one */
  uint64_t direct;            /* it was woken onto an idle CPU */
  uint64_t pulled;            /* it was taken over from another CPU's queue */
  uint64_t hints;             /* preempt_seq moved */
  uint64_t lost_hints;        /* without a record */
  uint64_t acknowledged;      /* a hint was, in time */
  uint64_t kicks;             /* escalations: THREAD_KICK */
  uint64_t throttles;         /* escalations: CGROUP_THROTTLE */
  uint64_t released;          /* effects of escalations undone */
  uint64_t protected_ticks;   /* a slice was refilled for a critical section */
  uint64_t violations;        /* critical sections beyond the bound */
  uint64_t hostile;           /* a control block said what cannot be (and was not believed) */
  uint64_t stale;             /* a registration that was another thread's */
  uint64_t registered;        /* threads that became workers */
  uint64_t ended;             /* workers that ended or left */
};

#endif
