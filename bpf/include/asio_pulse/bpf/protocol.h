/* SPDX-License-Identifier: BSL-1.0 OR GPL-2.0-only
 *
 * How a program gets its control blocks from the loader, `scx_pulse`. They use a unix socket of
 * type SOCK_SEQPACKET, with one request and one reply at a time, in the machine's byte order. A
 * program needs neither privileges nor a library for that.
 *
 *   program                          loader
 *   HELLO  (abi)              ──►    SO_PEERCRED; makes the process's array
 *                             ◄──    reply, with the array's descriptor (SCM_RIGHTS): mmap it,
 *                                    shared, readable and writable, slots * 128 bytes
 *   ATTACH (tid)              ──►    checks that the thread is the peer's
 *                             ◄──    reply, with the slot: element `slot` is the thread's
 *   (the thread sets SCHED_EXT on itself, and runs)
 *   DETACH (tid, slot)        ──►    forgets the thread
 *                             ◄──    reply
 *   STATUS                    ──►
 *                             ◄──    reply; its text is a JSON object
 *   SET    (settings)         ──►    only for root, and the user that the loader runs as
 *                             ◄──    reply
 *
 * Closing the connection detaches all threads of the process. So does the end of the process, even
 * if another process has inherited the connection. The loader closes the connection when it ends.
 *
 * The loader also closes the connection of a program that sends no requests: after 10 s if it has
 * no control blocks, and after 60 s if none of its threads is attached.
 *
 * STATUS and SET need no HELLO. STATUS is answered for any ABI version; all other requests only if
 * their version is that of the loader.
 *
 * A message that is not a request (because of its size or magic number), or that carries
 * descriptors, is refused, and the connection is closed after the reply. After any other refusal it
 * stays open. A message of zero bytes ends the connection.
 */
#ifndef ASIO_PULSE_BPF_PROTOCOL_H
#define ASIO_PULSE_BPF_PROTOCOL_H

#include <asio_pulse/bpf/control_block.h>

#ifdef __cplusplus
extern "C" {
#endif

#define ASIO_PULSE_SOCKET_PATH "/run/scx_pulse.sock"
/* An environment variable that names another socket for the runtime. If it is empty, no socket is
 * tried. */
#define ASIO_PULSE_SOCKET_VARIABLE "ASIO_PULSE_SOCKET"

#define ASIO_PULSE_PROTOCOL_MAGIC 0x41505543u /* "APUC" */

enum asio_pulse_request_kind {
  ASIO_PULSE_HELLO = 1,
  ASIO_PULSE_ATTACH = 2,
  ASIO_PULSE_DETACH = 3,
  ASIO_PULSE_STATUS = 4,
  ASIO_PULSE_SET = 5
};

enum asio_pulse_refusal {
  ASIO_PULSE_OK = 0,
  ASIO_PULSE_REFUSED_MALFORMED = 1,     /* not a request: its size, magic number or kind */
  ASIO_PULSE_REFUSED_VERSION = 2,       /* another ABI version; `abi_version` is the one that is served */
  ASIO_PULSE_REFUSED_ORDER = 3,         /* ATTACH or DETACH before HELLO, or a second HELLO */
  ASIO_PULSE_REFUSED_THREAD = 4,        /* no such thread, or it does not belong to the peer */
  ASIO_PULSE_REFUSED_PROCESS_LIMIT = 5, /* no more control blocks for this process */
  ASIO_PULSE_REFUSED_USER_LIMIT = 6,    /* no more processes or control blocks for this user */
  ASIO_PULSE_REFUSED_INTERNAL = 7,      /* an error in the loader or the kernel; see the text */
  ASIO_PULSE_REFUSED_PERMISSION = 8,    /* SET by a user who may not */
  ASIO_PULSE_REFUSED_VALUE = 9,         /* SET to an invalid value; the text names it and the rule */
  ASIO_PULSE_REFUSED_SERVICE_LIMIT = 10 /* no more connections except for root; try again later */
};

struct asio_pulse_request {
  uint32_t magic;
  uint16_t abi_version;
  uint16_t kind; /* enum asio_pulse_request_kind */
  uint32_t tid;  /* ATTACH, DETACH: the id in the program's own PID namespace */
  uint32_t slot; /* DETACH */
};

/* The bits of `fields`: which members of a SET are valid. */
enum asio_pulse_setting {
  ASIO_PULSE_SET_MODE = 1,
  ASIO_PULSE_SET_SLICE = 2,
  ASIO_PULSE_SET_GRACE = 4,
  ASIO_PULSE_SET_MAX_CRITICAL = 8,
  ASIO_PULSE_SET_THROTTLE = 16,
  ASIO_PULSE_SET_THROTTLE_PERCENT = 32
};

/* SET is a longer message; all others are only an asio_pulse_request. */
struct asio_pulse_set_request {
  struct asio_pulse_request request;
  uint32_t fields;
  uint32_t mode; /* enum asio_pulse_mode */
  uint64_t slice_ns;
  uint64_t grace_ns;
  uint64_t max_critical_ns;
  uint64_t throttle_ns;
  uint32_t throttle_percent;
  uint32_t reserved; /* 0 */
};

#define ASIO_PULSE_REPLY_TEXT 8192u

/* The size of the message is offsetof(struct asio_pulse_reply, text) + text_bytes. */
struct asio_pulse_reply {
  uint32_t magic;
  uint16_t abi_version;
  uint16_t kind;    /* of the request */
  uint32_t refusal; /* enum asio_pulse_refusal */
  uint32_t slot;    /* ATTACH */
  uint32_t slots;   /* HELLO: elements of the array */
  uint32_t text_bytes;
  char text[ASIO_PULSE_REPLY_TEXT]; /* a sentence if refused; STATUS: JSON. Not terminated */
};

ASIO_PULSE_ABI_ASSERT(sizeof(struct asio_pulse_request) == 16);
ASIO_PULSE_ABI_ASSERT(sizeof(struct asio_pulse_set_request) == 64);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_set_request, slice_ns) == 24);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_set_request, throttle_percent) == 56);
ASIO_PULSE_ABI_ASSERT(offsetof(struct asio_pulse_reply, text) == 24);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif
