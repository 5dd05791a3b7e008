/* Flow control: telling the protocol when to stop and go on writing.

   1. pause_writing is called inside the write that passed the high-water mark,
      as asyncio does; resume_writing when what waits is down to the low one.
   2. The protocol may do anything in either call, so both are the last thing
      their caller does, or the caller looks at the phase again. */
#include "net/stream.h"

#include "py/errors.h"

static int
tell(FlStream *self, PyObject *method, const char *message)
{
    if (self->protocol == NULL) {
        return 0; /* the collector took it */
    }
    PyObject *protocol = Py_NewRef(self->protocol);
    PyObject *result = PyObject_CallMethodNoArgs(protocol, method);
    int code = 0;
    if (result == NULL) {
        code = fl_stream_report(self, message);
    }
    Py_XDECREF(result);
    Py_DECREF(protocol);
    return code;
}

int
fl_stream_maybe_pause(FlStream *self)
{
    if (self->protocol_paused
        || self->chunks.size_bytes <= self->high_water_bytes) {
        return 0;
    }
    self->protocol_paused = true;
    return tell(self, self->loop->state->names.pause_writing,
                "protocol.pause_writing() failed");
}

int
fl_stream_maybe_resume(FlStream *self)
{
    if (!self->protocol_paused
        || self->chunks.size_bytes > self->low_water_bytes) {
        return 0;
    }
    self->protocol_paused = false;
    return tell(self, self->loop->state->names.resume_writing,
                "protocol.resume_writing() failed");
}
