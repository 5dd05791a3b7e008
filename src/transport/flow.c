/* Flow control: telling the protocol when to stop and go on writing.

   1. pause_writing is called inside the write that passed the high-water mark,
      as asyncio does; resume_writing when what waits is down to the low one.
   2. The protocol may do anything in either call, so both are the last thing
      their caller does, or the caller looks at the phase again. */
#include "transport/flow.h"

#include "core/metrics.h"
#include "py/compat.h"
#include "transport/stream.h"
#include "transport/stream_error.h"

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

void
fl_stream_meter_waiting(FlStream *self)
{
    if (self->loop == NULL || FL_LIKELY(self->loop->metrics == NULL)
        || self->loop->closed)
    {
        return;
    }
    size_t waiting = self->write_queue.size_bytes;
    FL_METER(self->loop, bytes_waiting,
             (uint64_t)waiting - (uint64_t)self->metered_bytes);
    self->metered_bytes = waiting;
}

int
fl_stream_maybe_pause(FlStream *self)
{
    bool pauses;
    Py_BEGIN_CRITICAL_SECTION(self);
    pauses = !self->protocol_paused
             && self->write_queue.size_bytes > self->high_water_bytes;
    if (pauses) {
        self->protocol_paused = true;
    }
    Py_END_CRITICAL_SECTION();
    return pauses ? tell(self, self->state->names.pause_writing,
                         "protocol.pause_writing() failed")
                  : 0;
}

int
fl_stream_maybe_resume(FlStream *self)
{
    bool resumes;
    Py_BEGIN_CRITICAL_SECTION(self);
    fl_stream_meter_waiting(self);
    resumes = self->protocol_paused
              && self->write_queue.size_bytes <= self->low_water_bytes;
    if (resumes) {
        self->protocol_paused = false;
    }
    Py_END_CRITICAL_SECTION();
    return resumes ? tell(self, self->state->names.resume_writing,
                          "protocol.resume_writing() failed")
                   : 0;
}

int
fl_flow_mark(PyObject *object, int64_t *mark)
{
    PyObject *whole;
    if (PyFloat_Check(object)) {
        /* Sizes are whole numbers: a fraction decides nothing. */
        double value = PyFloat_AS_DOUBLE(object);
        if (value >= (double)INT64_MAX) {
            *mark = INT64_MAX;
            return 0;
        }
        whole = PyLong_FromDouble(floor(value));
    }
    else {
        whole = PyNumber_Index(object);
    }
    if (whole == NULL) {
        return -1;
    }
    int overflow;
    long long number = PyLong_AsLongLongAndOverflow(whole, &overflow);
    Py_DECREF(whole);
    /* More than there can be memory is as good as that. */
    *mark = overflow > 0 ? INT64_MAX : overflow < 0 ? INT64_MIN : number;
    return 0;
}
