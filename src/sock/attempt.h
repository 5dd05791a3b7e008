/* One non-blocking try of a socket operation.  sock_recv and the other sock_*
   methods try when they are called, and again each time the fd is ready.

   Owner: a FlAttempt borrows its loop, socket and arguments; it owns only the
   buffer in `view`.  A SocketCall (sock_call.c) holds a copy that owns all of
   them.

   The system call is made directly only for a plain socket.socket.  Instances
   of other classes, and operations where it would gain little, go through the
   socket object's method, which raises the exceptions that asyncio raises.

   Where the socket has a persistent registration (loop/user_fd.h), an attempt
   records in it that the receive buffer is empty or the send buffer is full.
   While that is recorded, the next attempt makes no system call.

   Threads: the loop's thread, with the GIL.  Errors: -1 with an exception. */
#ifndef FL_SOCK_ATTEMPT_H
#define FL_SOCK_ATTEMPT_H

#include "core/loop.h"
#include "core/overrides.h"
#include "py/compat.h"
#include "py/state.h"

#define FL_MOST_ARGUMENTS 2

typedef struct FlAttempt FlAttempt;

/* Each function is like fl_attempt_try, with the socket's fd. */
typedef struct {
    size_t method_offset; /* the socket method's name: offset in FlNames */
    Py_ssize_t nargs;     /* of that method */
    int event;            /* FL_READABLE or FL_WRITABLE: wait for this */
    /* By a system call, for an open plain socket.  Records in a persistent
       registration, if the socket has one, what the call proved.  NULL: the
       operation has no direct call. */
    int (*direct)(FlAttempt *self, int fd, PyObject **result);
    /* By the socket object's method.  fd is -1 for a closed socket. */
    int (*by_method)(FlAttempt *self, int fd, PyObject **result);
} FlOperation;

struct FlAttempt {
    FlState *state;
    FlLoop *loop;
    const FlOperation *operation;
    PyObject *sock;
    PyObject *args[FL_MOST_ARGUMENTS]; /* NULL where there is none */
    Py_buffer view; /* sendall's data, owned; obj is NULL if there is none */
    Py_ssize_t sent_bytes;
    bool is_retry; /* an earlier try would have blocked */
};

extern const FlOperation fl_operation_recv;
extern const FlOperation fl_operation_recv_into;
extern const FlOperation fl_operation_recvfrom;
extern const FlOperation fl_operation_recvfrom_into;
extern const FlOperation fl_operation_sendall;
extern const FlOperation fl_operation_sendto;
extern const FlOperation fl_operation_accept;
extern const FlOperation fl_operation_connect;

/* Try once.  Returns 1 with *result set to a new reference, 0 if the operation
   would block, or -1 with an exception set. */
int fl_attempt_try(FlAttempt *self, PyObject **result);

static inline bool
fl_attempt_is_plain(const FlAttempt *self)
{
    return fl_socket_is_plain(self->state, Py_TYPE(self->sock));
}

/* The name of the socket's method, borrowed: "recv" for sock_recv. */
static inline PyObject *
fl_attempt_name(const FlAttempt *self)
{
    return fl_name_at(self->state, self->operation->method_offset);
}

/* Release sendall's buffer, if there is one. */
static inline void
fl_attempt_release_view(FlAttempt *self)
{
    /* Taken out first: releasing may run Python, which may end the call. */
    Py_buffer view = self->view;
    self->view.obj = NULL;
    PyBuffer_Release(&view); /* does nothing without an object */
}

#endif
