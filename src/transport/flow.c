/* Flow control: when the protocol must stop writing, and when it may go on.

   1. pause_writing is called inside the write that fills the queue above
      the high-water mark, as in asyncio.  resume_writing is called when the
      queue is down to the low-water mark.
   2. The protocol may close, abort or write in either call.  So each is the
      last thing its caller does, or the caller checks the phase again.
   3. The critical section covers the test, the flag and the reference to the
      protocol, and not the call: CPython would release it there. */
#include "transport/flow.h"

#include "py/call.h"
#include "py/compat.h"
#include "py/errors.h"
#include "transport/stream.h"

int
fl_flow_call(FlTransport *self, PyObject *protocol, PyObject *reported,
             bool pause)
{
    FlNames *names = &self->state->names;
    if (protocol == NULL) {
        return 0; /* the transport has ended */
    }
    Py_INCREF(self); /* the method may end the connection */
    int code = fl_call_method(
        protocol, pause ? names->pause_writing : names->resume_writing, NULL);
    Py_DECREF(protocol);
    if (code < 0 && !fl_error_leaves_loop()) {
        PyObject *exc = PyErr_GetRaisedException();
        code = fl_transport_report(self, reported, exc,
                                   pause ? "protocol.pause_writing() failed"
                                         : "protocol.resume_writing() failed");
        Py_DECREF(exc);
    }
    Py_DECREF(self);
    return code;
}

int
fl_flow_check(FlStream *self, bool pause)
{
    PyObject *protocol = NULL;
    Py_BEGIN_CRITICAL_SECTION(self);
    size_t size = self->write_queue.size_bytes;
    if (!pause) {
        fl_stream_meter_queue(self);
    }
    if (self->protocol_paused != pause
        && (pause ? size > self->high_water_bytes
                  : size <= self->low_water_bytes))
    {
        self->protocol_paused = pause;
        protocol = Py_XNewRef(self->protocol.object);
    }
    Py_END_CRITICAL_SECTION();
    return protocol == NULL
               ? 0
               : fl_flow_call((FlTransport *)self, protocol, NULL, pause);
}
