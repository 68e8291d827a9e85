#ifndef ASIO_PULSE_AUTO_CHECKPOINT_H
#define ASIO_PULSE_AUTO_CHECKPOINT_H

/* Automatic checkpoints: what code that was compiled with checks, the stub that is linked to it, and the
 * runtime agree on. Plain C; needs nothing else of asio-pulse. docs/auto_checkpoints.md explains the use. */

/* Leaves a function without checks. Put it in front of the declaration or the definition. The function is not inlined
 * either, because otherwise a caller with checks would write checks into its loops. */
#if defined(__clang__)
#define ASIO_PULSE_NO_AUTO_CHECKPOINTS \
  __attribute__((annotate("asio_pulse::no_checkpoints"), noinline))
#elif defined(__GNUC__) && defined(ASIO_PULSE_AUTO_CHECKPOINTS)
#define ASIO_PULSE_NO_AUTO_CHECKPOINTS __attribute__((asio_pulse_no_checkpoints, noinline))
#elif defined(__GNUC__)
#define ASIO_PULSE_NO_AUTO_CHECKPOINTS __attribute__((noinline))
#else
#define ASIO_PULSE_NO_AUTO_CHECKPOINTS
#endif

#ifdef __cplusplus
#define ASIO_PULSE_CHECKPOINT_NOEXCEPT noexcept
extern "C" {
#else
#define ASIO_PULSE_CHECKPOINT_NOEXCEPT
#endif

/* The work units that this thread may do until its next check calls the slow path. A check subtracts the work since
 * the last one and calls when the result is negative. A unit is about an instruction of the compiler's intermediate language.
 *
 * It may be written by the thread itself (its signal handlers included), and by any other thread through an address that
 * this thread gave it. Both write ASIO_PULSE_FUEL_ASK to make the next check call. The accesses of a check are plain
 * loads and stores, so a write by another thread can be lost: a thread that needs an answer writes again.
 *
 * Each module (the program, a shared library) contains a weak definition. The dynamic linker makes them one, if the program
 * exports its own; the CMake target asio_pulse::checkpoint_stub sees to that. A library that was loaded by dlopen() into
 * a program without the stub has a word of its own. */
#define ASIO_PULSE_FUEL_ASK (-(1 << 30))
extern __thread int asio_pulse_fuel __attribute__((tls_model("initial-exec")));

/* While it is above zero on a thread, asio_pulse::chunked_memory cuts no calls there: memcpy() and the others have no checks. It
 * is for functions that are left out, and call these with a lock that is not counted:
 *
 *   ++asio_pulse_no_chunks;
 *   memcpy(to, from, bytes);
 *   --asio_pulse_no_chunks;
 *
 * Only its own thread uses it, and the code in between must have no checks: a handler that is suspended does not take it along.
 * Modules share it as they share the fuel. Cost: nothing for small calls. */
extern __thread int asio_pulse_no_chunks __attribute__((tls_model("initial-exec")));

/* What a check calls. Preserves every register, does not need an aligned stack, and calls asio_pulse_refuel(return address).
 * Each module has its own copy. Not for callers that are written in C: there is no need for one. */
__attribute__((visibility("hidden"))) void asio_pulse_out_of_fuel(void);

/* Reads the TSC once, sets asio_pulse_fuel so that the next call comes 20 us of running time later (in the absence of a hook
 * 200 us), and calls the hook, if there is one. `place` is an address in the function that was checked. */
__attribute__((visibility("hidden"))) void asio_pulse_refuel(void* place)
    ASIO_PULSE_CHECKPOINT_NOEXCEPT;

/* Called on the thread and the stack of the checked code, in the middle of any expression. All registers were saved
 * before, the x87 stack is empty, and errno is restored afterwards. It may switch to another stack, and should return
 * on the same thread: checked code may have kept addresses of thread-locals. It must not throw. It may write
 * asio_pulse_fuel: the value that it leaves is the one that counts. */
typedef void (*asio_pulse_checkpoint_hook)(void* place);  // NOLINT(modernize-use-using): C

/* Installs the hook of the process, or none (a null pointer). There is one hook a process, however many modules have a copy
 * of the stub: its cell is a unique symbol (STB_GNU_UNIQUE), which the dynamic linker keeps once, RTLD_LOCAL or not. The
 * program must export its own (asio_pulse::checkpoint_stub passes --export-dynamic-symbol).
 *
 * Thread safety: any thread, any time. A check that is under way may still call the hook that was there before, so the code of
 * a hook stays mapped. Cost: one store (release; pairs with the acquire load in asio_pulse_refuel). Errors: none. */
void asio_pulse_set_checkpoint_hook(asio_pulse_checkpoint_hook hook) ASIO_PULSE_CHECKPOINT_NOEXCEPT;

/* The hook that is installed, or a null pointer. */
asio_pulse_checkpoint_hook asio_pulse_get_checkpoint_hook(void) ASIO_PULSE_CHECKPOINT_NOEXCEPT;

#ifdef __cplusplus
}
#endif

#endif
