/* Pipes: events, opening, the Python types.

   Opening, reading, closing, writing and flow control are those of streams.
   What asyncio's pipe transports do differently is in the tables read_kind and
   write_kind.  No pipe is corked: the application can get each one, a
   subprocess's too (get_extra_info), and may write to it directly. */
#include "transport/pipe.h"

#include "py/call.h"
#include "py/compat.h"
#include "transport/stream.h"
#include "transport/stream_close.h"
#include "transport/stream_read.h"
#include "transport/stream_transport.h"
#include "transport/stream_write.h"
#include "transport/transport.h"

#include <errno.h>
#include <sys/uio.h>
#include <unistd.h>

#define READ_FAILED  "Fatal read error on pipe transport"
#define WRITE_FAILED "Fatal write error on pipe transport"

/* --- read pipes ---------------------------------------------------------- */

/* Queue eof_received and connection_lost.  So neither the result nor an
   exception of eof_received keeps the transport open. */
static int
handle_eof(FlStream *self)
{
    int code =
        fl_call_method(self->state->helpers, self->state->names.end_read_pipe,
                       (PyObject *)self);
    return code < 0 ? fl_stream_fatal(self, READ_FAILED) : 0;
}

static PyObject *
read_ready(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(fl_stream_read_ready(self));
}

static PyMethodDef read_ready_def = {"_read_ready", (PyCFunction)read_ready,
                                     METH_NOARGS, NULL};

static const FlStreamKind read_kind = {
    .handle_eof = handle_eof,
    .read_failed = READ_FAILED,
    .is_pipe = true,
    .event_methods = {&read_ready_def, NULL},
};

/* --- write pipes --------------------------------------------------------- */

static ssize_t
pipe_send(FlStream *self, struct iovec *pieces, int count)
{
    return writev(self->fd, pieces, count);
}

/* A write pipe whose reader is gone becomes readable, and ends.  A pipe that
   is never_readable (a device, or on macOS a named FIFO) does not report
   that. */
static PyObject *
reader_gone(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(
        self->phase < FL_STREAM_LOST
                && fl_call_method(self->state->helpers,
                                  self->state->names.end_write_pipe,
                                  (PyObject *)self)
                       < 0
            ? fl_stream_fatal(self, WRITE_FAILED)
            : 0);
}

static PyObject *
write_ready(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return fl_call_none(fl_stream_write_ready(self));
}

static PyMethodDef reader_gone_def = {"_read_ready", (PyCFunction)reader_gone,
                                      METH_NOARGS, NULL};
static PyMethodDef write_ready_def = {"_write_ready", (PyCFunction)write_ready,
                                      METH_NOARGS, NULL};

static const FlStreamKind write_kind = {
    .send = pipe_send,
    .write_lost =
        "pipe closed by peer or os.write(pipe, data) raised exception.",
    .drops_writes_from = FL_STREAM_CLOSING,
    .is_pipe = true,
    .event_methods = {&reader_gone_def, &write_ready_def},
};

/* --- methods ------------------------------------------------------------- */

FL_ONE_ARGUMENT(FlStream, pipe_write, "write", "data", fl_stream_write)

/* --- opening ------------------------------------------------------------- */

static PyObject *
open_pipe(PyObject *module, PyObject *args)
{
    FlState *state = fl_state_get(module);
    PyObject *loop, *pipe, *protocol, *waiter, *extra;
    int writes, reports_end;
    if (!PyArg_ParseTuple(args, "O!OppOOO:open_pipe", state->loop_type, &loop,
                          &pipe, &writes, &reports_end, &protocol, &waiter,
                          &extra))
    {
        return NULL;
    }
    FlStreamOptions options = {
        .type = writes ? state->write_pipe_type : state->read_pipe_type,
        .kind = writes ? &write_kind : &read_kind,
        .sock = pipe,
        .exposed = true,
        .never_readable = writes && !reports_end,
        .fd = PyObject_AsFileDescriptor(pipe),
        .protocol = protocol,
        .waiter = fl_none_to_null(waiter),
        .extra = fl_none_to_null(extra),
    };
    return options.fd < 0 ? NULL : fl_stream_open(FL_LOOP(loop), &options);
}

static PyMethodDef functions[] = {
    {"open_pipe", open_pipe, METH_VARARGS,
     "open_pipe(loop, pipe, writes, reports_end, protocol, waiter, extra, /)\n"
     "--\n\n"
     "Create a WritePipeTransport, or else a ReadPipeTransport, on a\n"
     "non-blocking pipe.\n\n"
     "The transport owns the pipe from now on.  reports_end: the pipe\n"
     "becomes readable when its reader is gone.  waiter and extra may be\n"
     "None."},
    {NULL, NULL, 0, NULL},
};

/* --- the types ----------------------------------------------------------- */

static PyMethodDef no_methods[] = {
    {NULL, NULL, 0, NULL},
};

static PyObject *
write_eof(FlStream *self, PyObject *Py_UNUSED(ignored))
{
    return PyObject_CallMethodNoArgs((PyObject *)self,
                                     self->state->names.close);
}

/* writelines is inherited: it joins the data, and calls write. */
static PyMethodDef write_methods[] = {
    FL_METHOD("write", pipe_write, FL_FASTCALL,
              "write($self, data)\n--\n\n"
              "Write a bytes, bytearray or memoryview object in order,\n"
              "without blocking.  The caller may change a mutable buffer\n"
              "afterwards.\n\n"
              "Raises TypeError for other types.  After close() the\n"
              "data is dropped.  Implements asyncio's\n"
              "WriteTransport.write()."),
    FL_METHOD("write_eof", write_eof, METH_NOARGS,
              "write_eof($self, /)\n--\n\n"),
    FL_METHOD("can_write_eof", fl_transport_true, METH_NOARGS,
              "can_write_eof($self, /)\n--\n\n"),
    {NULL, NULL, 0, NULL},
};

int
fl_pipe_register(PyObject *module, FlState *state)
{
    state->read_pipe_type = fl_stream_type_new(
        module, "fastloop._core.ReadPipeTransport", sizeof(FlPipe),
        "An asyncio.ReadTransport for a pipe, created by the loop.",
        no_methods, FL_READS);
    state->write_pipe_type =
        state->read_pipe_type == NULL
            ? NULL
            : fl_stream_type_new(
                module, "fastloop._core.WritePipeTransport", sizeof(FlPipe),
                "An asyncio.WriteTransport for a pipe, created by the loop.",
                write_methods, FL_WRITES);
    return state->write_pipe_type == NULL
               ? -1
               : PyModule_AddFunctions(module, functions);
}
