/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * The scheduling policies: how threads that share a CPU take turns. A policy is a file
 * policy_NAME.bpf.h, and here its row and its #include. The enumeration, the names on the command
 * line and in the status, and the calls of its functions follow from the row.
 */
#ifndef ASIO_PULSE_POLICIES_H
#define ASIO_PULSE_POLICIES_H

/* Enumerator, name of its functions, name for the user. The first is the default. */
#define SCX_PULSE_POLICIES(X, ...)                        \
  X(ROUND_ROBIN, round_robin, "round-robin", __VA_ARGS__) \
  X(PRIORITY, priority, "priority", __VA_ARGS__)          \
  X(FAIR, fair, "fair", __VA_ARGS__)

#ifdef __bpf__
#include "policy_fair.bpf.h"
#include "policy_priority.bpf.h"
#include "policy_round_robin.bpf.h"
#endif

/* What a policy NAME defines, all of it static __always_inline. `p` is the thread, `t` its state,
 * `cpu` the CPU's number, `c` its state, and `s` the settings.
 *
 * enum { NAME_queues, NAME_compares }
 *     how many queues of a CPU it has; whether dispatch() gets a competitor
 * void NAME_begin(p, t)
 *     the thread has become SCHED_EXT
 * void NAME_direct(p, cpu, s)
 *     it has been woken onto an idle CPU, and does not wait
 * void NAME_enqueue(p, t, cpu, c, s, slice, enq_flags)
 *     it waits for the CPU: puts it into one of the queues. `t` may be NULL
 * bool NAME_dispatch(cpu, c, s, prev, competitor)
 *     lets a thread run on the CPU: one from its queues, or `prev`, with a new slice. False if no
 *     thread waits, or only threads that come after the competitor. `competitor` is the state of
 *     `prev` if that wants to go on and need not give way, else NULL
 * void NAME_running(t)
 *     it runs now, on the CPU of the caller
 * u32 NAME_length(cpu, c)
 *     how many threads wait in the queues: at each tick of the CPU
 * void NAME_release(it, p, cpu, c)
 *     it is no longer held: moves it from `it` into one of the queues
 *
 * What it remembers of a CPU or of a thread is in a struct of its own: see OF_POLICY(). */

enum scx_pulse_local_policy {
#define SCX_PULSE_POLICY_(NAME, name, text, ...) SCX_PULSE_##NAME,
  SCX_PULSE_POLICIES(SCX_PULSE_POLICY_, )
#undef SCX_PULSE_POLICY_
};

#endif
