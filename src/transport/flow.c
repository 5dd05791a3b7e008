/* Flow control: when the protocol must stop writing, and when it may go on.

   1. pause_writing is called inside the write that raised the backlog above
      the high-water mark, as in asyncio.  resume_writing is called when the
      backlog is down to the low-water mark.
   2. The protocol may close, abort or write in either call.  So each is the
      last thing its caller does, or the caller checks the phase again.
   3. The critical section covers the test and the flag, and not the call:
      CPython would release it there. */
#include "transport/flow.h"

#include "core/metrics.h"
#include "py/compat.h"
#include "transport/stream.h"
#include "transport/stream_error.h"

/* Call pause_writing or resume_writing.  An exception is reported with the
   message.  0, or -1 with one that leaves the loop. */
static int
call_protocol(FlStream *self, PyObject *method, const char *message)
{
    if (self->protocol == NULL) {
        return 0; /* fl_stream_clear dropped it */
    }
    /* Owned: the method may call set_protocol. */
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
fl_stream_meter_backlog(FlStream *self)
{
    if (self->loop == NULL || FL_LIKELY(self->loop->metrics == NULL)
        || self->loop->closed)
    {
        return; /* fl_metrics_closed has reset a closed loop's counters */
    }
    /* The counter is the sum over all streams: add the difference.  A negative
       one wraps around, which unsigned addition undoes. */
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
    return pauses ? call_protocol(self, self->state->names.pause_writing,
                                  "protocol.pause_writing() failed")
                  : 0;
}

int
fl_stream_maybe_resume(FlStream *self)
{
    bool resumes;
    Py_BEGIN_CRITICAL_SECTION(self);
    fl_stream_meter_backlog(self);
    resumes = self->protocol_paused
              && self->write_queue.size_bytes <= self->low_water_bytes;
    if (resumes) {
        self->protocol_paused = false;
    }
    Py_END_CRITICAL_SECTION();
    return resumes ? call_protocol(self, self->state->names.resume_writing,
                                   "protocol.resume_writing() failed")
                   : 0;
}

int
fl_flow_parse_mark(PyObject *object, int64_t *mark)
{
    PyObject *whole;
    if (PyFloat_Check(object)) {
        /* Backlogs are whole numbers, so a fraction changes no comparison. */
        double value = PyFloat_AS_DOUBLE(object);
        if (value >= (double)INT64_MAX) { /* infinity, too */
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
    long long value = PyLong_AsLongLongAndOverflow(whole, &overflow);
    Py_DECREF(whole);
    /* No backlog reaches a mark beyond 64 bits: the largest one acts alike. */
    *mark = overflow > 0 ? INT64_MAX : overflow < 0 ? INT64_MIN : value;
    return 0;
}
