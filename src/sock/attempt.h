/* One call of a socket, tried once: what sock_recv and its kin do at once, and
   again when the descriptor is ready.

   An attempt borrows what it is about.  Sockets of a class of their own, and
   calls not worth more, go through the socket object, which raises what
   asyncio passes on.

   Where the socket's watch is kept (loop/fd_wait.h), an attempt notes there
   that nothing is left to read or no room to write, and does not call where
   that is noted already. */
#ifndef FL_SOCK_ATTEMPT_H
#define FL_SOCK_ATTEMPT_H

#include "core/loop.h"
#include "core/overrides.h"
#include "py/compat.h"
#include "py/state.h"

#define FL_MOST_ARGUMENTS 2

typedef struct FlAttempt FlAttempt;

typedef struct {
    size_t called;    /* of the socket's method: where FlNames has it */
    int event;        /* what to wait for */
    bool any_class;   /* make bears sockets of other classes */
    bool may_persist; /* make knows of kept watches */
    /* As fl_attempt_make, on a number or, of any_class, -1; NULL: by the
       socket object. */
    int (*make)(FlAttempt *self, int fd, PyObject **result);
} FlOperation;

struct FlAttempt {
    FlState *state;
    FlLoop *loop;
    const FlOperation *operation;
    PyObject *sock;
    PyObject *args[FL_MOST_ARGUMENTS];
    Py_ssize_t nargs;
    Py_buffer view; /* of what is sent, owned; obj NULL: none */
    Py_ssize_t sent_bytes;
    bool again; /* it was tried before, and waited */
};

extern const FlOperation fl_operation_recv;
extern const FlOperation fl_operation_recv_into;
extern const FlOperation fl_operation_recvfrom;
extern const FlOperation fl_operation_recvfrom_into;
extern const FlOperation fl_operation_sendall;
extern const FlOperation fl_operation_sendto;
extern const FlOperation fl_operation_accept;
extern const FlOperation fl_operation_connect;

/* Try once.  1 with *result set, 0 when it is to wait, -1 with an exception
   set. */
int fl_attempt_make(FlAttempt *self, PyObject **result);

/* Whether the socket's watch may be kept: a TCP connection, where the system
   tells by an edge whatever a call may have missed. */
bool fl_attempt_may_persist(const FlAttempt *self, int fd);

/* Whether the socket object's methods are the system calls. */
static inline bool
fl_attempt_is_plain(const FlAttempt *self)
{
    return Py_TYPE(self->sock) == (PyTypeObject *)self->state->socket_type
           && !fl_overrides_socket(self->state);
}

static inline PyObject *
fl_attempt_name(const FlAttempt *self)
{
    return *(PyObject *const *)((const char *)&self->state->names
                                + self->operation->called);
}

/* Let go of the buffer that is sent. */
static inline void
fl_attempt_release_view(FlAttempt *self)
{
    if (self->view.obj != NULL) {
        PyBuffer_Release(&self->view);
    }
}

#endif
