// SPDX-License-Identifier: BSL-1.0
//
// Catches programs of which a part was compiled without the tracking definition.
//
// In such a part operations have another layout, and the linker keeps only one copy of each of
// Asio's inline functions for all parts, so the program would crash. tracking.hpp renames the types
// that differ, so that the functions that handle them have other names in a tracked part. The names
// below are those that only an untracked part defines and calls. Inline functions are weak symbols
// and these definitions are strong, so the linker takes these. They print what to do.
//
// This file is a part of the target asio_pulse::hooks only, and the linker takes it only if a part
// of the program is tracked.
//
// The names are those of Boost 1.74 to 1.92, as tests/compat finds them. A name that a later Asio
// no longer has does no harm.

#include <cstdio>
#include <cstdlib>

#if defined(__ELF__)
#include <poll.h>
#include <unistd.h>
#endif

extern "C" {

extern const char asio_pulse_tracking_in_force;
const char asio_pulse_tracking_in_force = 1;

[[noreturn]] void asio_pulse_refuse_untracked() noexcept;
void asio_pulse_refuse_untracked() noexcept {
  static const char message[] =
      "asio-pulse: a part of this program was compiled without asio-pulse's handler tracking, and "
      "calls Boost.Asio. "
      "Compile every file and library that includes Boost.Asio with "
      "-DBOOST_ASIO_CUSTOM_HANDLER_TRACKING='\"asio_pulse/hooks/tracking.hpp\"' (CMake: link "
      "asio_pulse::asio_pulse to all of them), or, where that cannot be, build the whole program "
      "without it and link "
      "asio_pulse::executor_only.\n";
#if defined(__ELF__)
  // A full pipe, or one without a reader, must not keep the program from aborting.
  pollfd ready{STDERR_FILENO, POLLOUT, 0};
  if (::poll(&ready, 1, 0) == 1 && ready.revents == POLLOUT) {
    const auto written = ::write(STDERR_FILENO, message, sizeof message - 1);
    static_cast<void>(written);
  }
#else
  std::fputs(message, stderr);
#endif
  std::abort();
}

#if defined(__ELF__)

#define ASIO_PULSE_REFUSE(number, name)                                 \
  [[noreturn]] void asio_pulse_untracked_##number() noexcept asm(name); \
  void asio_pulse_untracked_##number() noexcept { asio_pulse_refuse_untracked(); }

// epoll_reactor::post_immediate_completion
ASIO_PULSE_REFUSE(1,
                  "_ZN5boost4asio6detail13epoll_reactor25post_immediate_completionEPNS1_19scheduler"
                  "_operationEb")
// epoll_reactor::call_post_immediate_completion
ASIO_PULSE_REFUSE(2,
                  "_ZN5boost4asio6detail13epoll_reactor30call_post_immediate_completionEPNS1_19sche"
                  "duler_operationEbPKv")
// epoll_reactor::run
ASIO_PULSE_REFUSE(3,
                  "_ZN5boost4asio6detail13epoll_reactor3runElRNS1_8op_queueINS1_19scheduler_operati"
                  "onEEE")
// epoll_reactor::start_op
ASIO_PULSE_REFUSE(4,
                  "_ZN5boost4asio6detail13epoll_reactor8start_opEiiRPNS2_16descriptor_stateEPNS1_10"
                  "reactor_opEbbPFvPNS1_19scheduler_operationEbPKvESB_")
// strand_executor_service::enqueue
ASIO_PULSE_REFUSE(5,
                  "_ZN5boost4asio6detail23strand_executor_service7enqueueERKSt10shared_ptrINS2_11st"
                  "rand_implEEPNS1_19scheduler_operationE")
// scheduler::do_run_one
ASIO_PULSE_REFUSE(6,
                  "_ZN5boost4asio6detail9scheduler10do_run_oneERNS1_27conditionally_enabled_mutex11"
                  "scoped_lockERNS1_21scheduler_thread_infoERKNS_6system10error_codeE")
// scheduler::do_run_one
ASIO_PULSE_REFUSE(7,
                  "_ZN5boost4asio6detail9scheduler10do_run_oneERNS1_27conditionally_enabled_mutexIN"
                  "S1_11posix_mutexEE11scoped_lockERNS1_21scheduler_thread_infoERKNS_6system10error"
                  "_codeE")
// scheduler::do_poll_one
ASIO_PULSE_REFUSE(8,
                  "_ZN5boost4asio6detail9scheduler11do_poll_oneERNS1_27conditionally_enabled_mutex1"
                  "1scoped_lockERNS1_21scheduler_thread_infoERKNS_6system10error_codeE")
// scheduler::do_poll_one
ASIO_PULSE_REFUSE(9,
                  "_ZN5boost4asio6detail9scheduler11do_poll_oneERNS1_27conditionally_enabled_mutexI"
                  "NS1_11posix_mutexEE11scoped_lockERNS1_21scheduler_thread_infoERKNS_6system10erro"
                  "r_codeE")
// scheduler::do_wait_one
ASIO_PULSE_REFUSE(10,
                  "_ZN5boost4asio6detail9scheduler11do_wait_oneERNS1_27conditionally_enabled_mutex1"
                  "1scoped_lockERNS1_21scheduler_thread_infoElRKNS_6system10error_codeE")
// scheduler::do_wait_one
ASIO_PULSE_REFUSE(11,
                  "_ZN5boost4asio6detail9scheduler11do_wait_oneERNS1_27conditionally_enabled_mutexI"
                  "NS1_11posix_mutexEE11scoped_lockERNS1_21scheduler_thread_infoElRKNS_6system10err"
                  "or_codeE")
// scheduler::abandon_operations
ASIO_PULSE_REFUSE(12,
                  "_ZN5boost4asio6detail9scheduler18abandon_operationsERNS1_8op_queueINS1_19schedul"
                  "er_operationEEE")
// scheduler::post_deferred_completion
ASIO_PULSE_REFUSE(13,
                  "_ZN5boost4asio6detail9scheduler24post_deferred_completionEPNS1_19scheduler_opera"
                  "tionE")
// scheduler::post_deferred_completions
ASIO_PULSE_REFUSE(14,
                  "_ZN5boost4asio6detail9scheduler25post_deferred_completionsERNS1_8op_queueINS1_19"
                  "scheduler_operationEEE")
// scheduler::post_immediate_completion
ASIO_PULSE_REFUSE(15,
                  "_ZN5boost4asio6detail9scheduler25post_immediate_completionEPNS1_19scheduler_oper"
                  "ationEb")
// epoll_reactor::schedule_timer, of steady and system timers
ASIO_PULSE_REFUSE(30,
                  "_ZN5boost4asio6detail13epoll_reactor14schedule_timerINS1_18chrono_time_traitsINS"
                  "t6chrono3_V212steady_clockENS0_11wait_traitsIS7_EEEEEEvRNS1_11timer_queueIT_EERK"
                  "NSC_9time_typeERNSD_14per_timer_dataEPNS1_7wait_opE")
// epoll_reactor::schedule_timer, of steady and system timers
ASIO_PULSE_REFUSE(31,
                  "_ZN5boost4asio6detail13epoll_reactor14schedule_timerINS1_18chrono_time_traitsINS"
                  "t6chrono3_V212steady_clockENS0_11wait_traitsIS7_EEEENS0_17execution_context9allo"
                  "catorIvEEEEvRNS1_11timer_queueIT_T0_EERKNSF_9time_typeERNSH_14per_timer_dataEPNS"
                  "1_7wait_opE")
// epoll_reactor::schedule_timer, of steady and system timers
ASIO_PULSE_REFUSE(32,
                  "_ZN5boost4asio6detail13epoll_reactor14schedule_timerINS1_18chrono_time_traitsINS"
                  "t6chrono3_V212system_clockENS0_11wait_traitsIS7_EEEEEEvRNS1_11timer_queueIT_EERK"
                  "NSC_9time_typeERNSD_14per_timer_dataEPNS1_7wait_opE")
// epoll_reactor::schedule_timer, of steady and system timers
ASIO_PULSE_REFUSE(33,
                  "_ZN5boost4asio6detail13epoll_reactor14schedule_timerINS1_18chrono_time_traitsINS"
                  "t6chrono3_V212system_clockENS0_11wait_traitsIS7_EEEENS0_17execution_context9allo"
                  "catorIvEEEEvRNS1_11timer_queueIT_T0_EERKNSF_9time_typeERNSH_14per_timer_dataEPNS"
                  "1_7wait_opE")

#endif

}  // extern "C"
