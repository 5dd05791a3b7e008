/* DatagramTransport: opening, events, the Python type.

   1. Opening is that of a stream, in asyncio's order: connection_made, then
      reading begins, then the waiter is done.
   2. The socket object is passed in by the caller and owns the descriptor from
      the start.  C code never closes this fd itself: the object would close it
      again.
   3. The socket's class does not override fileno() or socket I/O, and
      sockaddr.c can format its family's addresses.  Otherwise
      _make_datagram_transport in fastloop/connections.py creates asyncio's
      transport: C code would bypass the overridden methods, and could not
      format a sender's address. */
#include "transport/datagram_transport.h"

#include "core/fd_set.h"
#include "core/loop.h"
#include "py/args.h"
#include "py/call.h"
#include "py/compat.h"
#include "py/state.h"
#include "transport/datagram.h"
#include "transport/datagram_write.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_transport.h"
#include "transport/transport.h"
#include "transport/write_queue.h"

#include <sys/un.h>

/* --- events -------------------------------------------------------------- */

/* Dispatch an event: read first, then write; each checks the phase.  0, or -1
   if an exception ends the run. */
static int
run_events(FlStream *stream, int events)
{
    FlDatagram *self = FL_DATAGRAM(stream);
    int code = events & FL_READABLE ? fl_datagram_read_ready(self) : 0;
    return code == 0 && (events & FL_WRITABLE) ? fl_datagram_write_ready(self)
                                               : code;
}

/* --- opening ------------------------------------------------------------- */

static const char open_datagram_doc[] =
    "open_datagram(loop, sock, shared, protocol, address, waiter, extra, /)"
    "\n--\n\n"
    "Create a DatagramTransport on a non-blocking datagram socket.\n\n"
    "The transport owns the socket from now on.  shared: the caller may keep\n"
    "references to the socket object.  address: the only remote address, or\n"
    "None for any.  The parameters after protocol may be None.";

/* The method open_datagram: checks its arguments, opens a stream of this type,
   then fills in the fields of FlDatagram.  On failure the socket remains the
   caller's, and open. */
static PyObject *
open_datagram(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *sock, *protocol, *address, *waiter, *extra;
    int shared;
    if (!PyArg_ParseTuple(args, "O!OpOOOO:open_datagram", state->loop_type,
                          &loop, &sock, &shared, &protocol, &address, &waiter,
                          &extra)
        || fl_loop_check_open(FL_LOOP(loop)) < 0)
    {
        return NULL;
    }
    FlStreamOptions options = {
        .type = state->datagram_type,
        .run_events = run_events,
        .sock = sock,
        .sock_private = !shared,
        .fd = PyObject_AsFileDescriptor(sock),
        .protocol = protocol,
        .waiter = fl_none_to_null(waiter),
        .extra = fl_none_to_null(extra),
    };
    struct sockaddr_storage name = {.ss_family = AF_UNSPEC};
    socklen_t size = sizeof(name);
    /* fileno() of a closed socket is -1: AsFileDescriptor has raised. */
    if (options.fd < 0) {
        return NULL;
    }
    if (getsockname(options.fd, (struct sockaddr *)&name, &size) < 0) {
        /* Then C code parses no address: the socket object handles each. */
        name.ss_family = AF_UNSPEC;
    }
    /* This queues connection_made and runs no protocol: the fields below are
       set before anybody uses the transport. */
    PyObject *transport = fl_stream_open(FL_LOOP(loop), &options);
    if (transport != NULL) {
        FlDatagram *self = FL_DATAGRAM(transport);
        const FlName *peer = self->stream.peer;
        self->address = Py_XNewRef(fl_none_to_null(address));
        self->family = name.ss_family;
        /* As asyncio, which tests the peername: that of a Unix peer without a
           name is the empty string, which is false. */
        self->connected =
            peer != NULL
            && (fl_name_address(peer)->ss_family != AF_UNIX
                || peer->size > offsetof(struct sockaddr_un, sun_path));
    }
    return transport;
}

/* --- methods ------------------------------------------------------------- */

static const char sendto_doc[] =
    "sendto($self, /, data, addr=None)\n--\n\n"
    "Send a bytes, bytearray or memoryview object as one datagram, without\n"
    "blocking.  It is buffered while the kernel has no space for it.\n\n"
    "addr is the destination; None if the endpoint has a remote address or\n"
    "its socket is connected.\n"
    "Raises TypeError for other data, ValueError for an address other than\n"
    "the endpoint's.  A system error goes to the protocol's\n"
    "error_received().  "
    "Implements asyncio's DatagramTransport.sendto().";

/* asyncio's private names for the event callbacks.  Programs and tests call
   them, and reports of exceptions name them. */
static PyObject *
datagram_read_ready(FlDatagram *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(fl_datagram_read_ready(self));
}

static PyObject *
datagram_sendto_ready(FlDatagram *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(fl_datagram_write_ready(self));
}

static const char read_ready_doc[] =
    "_read_ready($self, /)\n--\n\n"
    "Receive and deliver datagrams; asyncio's private name.";

static const char sendto_ready_doc[] =
    "_sendto_ready($self, /)\n--\n\n"
    "Send buffered datagrams; asyncio's private name.";

/* --- garbage collection -------------------------------------------------- */

/* Objects that cannot be part of a cycle are not visited: bytes, and the
   addresses that C code created or accepted (FlAddress). */
static int
datagram_traverse(FlDatagram *self, visitproc visit, void *arg)
{
    Py_VISIT(self->address);
    /* An address in the queue may be any object. */
    PyObject *const *pair;
    for (size_t at = 0;
         (pair = fl_write_queue_pair(&self->stream.write_queue, at)) != NULL;
         at++)
    {
        Py_VISIT(pair[1]);
    }
    return fl_stream_traverse(&self->stream, visit, arg);
}

static int
datagram_clear(FlDatagram *self)
{
    /* The base's clear does not drop the queue: a stream's bytes cannot be
       part of a cycle, but these addresses can. */
    fl_write_queue_clear(&self->stream.write_queue);
    fl_datagram_drop_received(self);
    Py_CLEAR(self->address);
    Py_CLEAR(self->last_sender.object);
    Py_CLEAR(self->last_target.object);
    return fl_stream_clear(&self->stream);
}

static void
datagram_dealloc(FlDatagram *self)
{
    /* First of all: the finalizer needs every field, and it may resurrect the
       object. */
    if (PyObject_CallFinalizerFromDealloc((PyObject *)self) < 0) {
        return;
    }
    PyObject_GC_UnTrack(self);
    (void)datagram_clear(self);
    fl_stream_dealloc(&self->stream);
}

/* --- the type ------------------------------------------------------------ */

static PyMethodDef datagram_methods[] = {
    FL_METHOD("sendto", fl_datagram_sendto, FL_FASTCALL, sendto_doc),
    FL_METHOD("_read_ready", datagram_read_ready, METH_NOARGS, read_ready_doc),
    FL_METHOD("_sendto_ready", datagram_sendto_ready, METH_NOARGS,
              sendto_ready_doc),
    {NULL, NULL, 0, NULL},
};

static const char datagram_doc[] =
    "An asyncio.DatagramTransport for a UDP or Unix datagram socket,\n"
    "created by the loop.";

static PyType_Slot datagram_slots[] = {
    {Py_tp_doc, (void *)datagram_doc},     {Py_tp_dealloc, datagram_dealloc},
    {Py_tp_finalize, fl_stream_finalize},  {Py_tp_traverse, datagram_traverse},
    {Py_tp_clear, datagram_clear},         {Py_tp_repr, fl_stream_repr},
    {Py_tp_methods, datagram_methods},     {Py_tp_getset, fl_transport_getset},
    {Py_tp_members, fl_transport_members}, {0, NULL},
};

static PyMethodDef functions[] = {
    {"open_datagram", open_datagram, METH_VARARGS, open_datagram_doc},
    {NULL, NULL, 0, NULL},
};

int
fl_datagram_register(PyObject *module, FlState *state)
{
    /* Since 3.12 asyncio's own class also derives from DatagramTransport, so
       isinstance must hold here as well. */
    PyObject *mixin = FL_HAVE_DATAGRAM_BASE ? state->asyncio_datagrams : NULL;
    state->datagram_type =
        fl_transport_type_new(module, "fastloop._core.DatagramTransport",
                              sizeof(FlDatagram), datagram_slots,
                              state->asyncio_transport, mixin);
    if (state->datagram_type == NULL) {
        return -1;
    }
    return PyModule_AddFunctions(module, functions);
}
