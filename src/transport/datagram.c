/* What a datagram transport reports: datagram.h. */
#include "transport/datagram.h"

#include "core/report.h"
#include "py/call.h"
#include "py/errors.h"
#include "py/field.h"
#include "py/state.h"

int
fl_datagram_call_error_received(FlDatagram *self, PyObject *exc)
{
    PyObject *protocol = fl_protocol_get(self, &self->stream.protocol).object;
    if (protocol == NULL) {
        return 0; /* Python code in the failed call ended the transport */
    }
    int code = fl_call_method(protocol,
                              self->stream.state->names.error_received, exc);
    Py_DECREF(protocol);
    return code;
}

int
fl_datagram_report_errno(FlDatagram *self, int code)
{
    PyObject *exc = fl_errno_exception(code);
    int result = exc == NULL ? -1 : fl_datagram_call_error_received(self, exc);
    Py_XDECREF(exc);
    return result;
}

int
fl_datagram_report(FlDatagram *self, PyObject *method)
{
    /* The call that raised may have ended the transport: no loop is left to
       report to. */
    if (self->stream.loop == NULL) {
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    return fl_loop_report_call(self->stream.loop, (PyObject *)self, method,
                               NULL, NULL);
}
