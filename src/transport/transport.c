/* The methods of all transports: transport.h.

   The functions here check and convert arguments.  The work is done by the
   operations of the transport's kind.  set_write_buffer_limits and
   get_write_buffer_limits are asyncio's own: they use the attributes
   _high_water and _low_water and _maybe_pause_protocol.

   Without a GIL a method may be called in another thread.  close, abort,
   pause_reading, resume_reading and the check of new water marks change what
   only the loop's thread may change, and are forwarded to it (was_queued). */
#include "transport/transport.h"

#include "core/report.h"
#include "py/call.h"
#include "py/errors.h"
#include "py/field.h"

/* --- threads ------------------------------------------------------------- */

PyObject *
fl_transport_queue_to_loop(FlLoop *loop, PyObject *self, PyObject *method,
                           PyObject *argument)
{
    /* From the type, not from the instance: an application may have replaced
       the instance's attribute with a wrapper that called us, and would be
       called twice. */
    PyObject *function = PyObject_GetAttr((PyObject *)Py_TYPE(self), method);
    PyObject *queued =
        function == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(
                (PyObject *)loop, loop->state->names.call_soon_threadsafe,
                function, self, argument, NULL);
    Py_XDECREF(function);
    return fl_call_none(fl_call_done(queued));
}

/* Forward a method without arguments to the loop's thread if this thread must
   not run it.  True if so: the caller then returns *result, which is None or
   NULL with an exception set.  Always false with a GIL. */
static bool
was_queued(FlTransport *self, PyObject *method, PyObject **result)
{
#if FL_HAVE_GIL
    return false;
#else
    /* The loop's thread may be clearing self->loop: see stream_finish. */
    PyObject *loop = fl_field_get(self, (PyObject **)&self->loop);
    bool elsewhere = fl_loop_on_other_thread((FlLoop *)loop);
    if (elsewhere) {
        *result = fl_transport_queue_to_loop((FlLoop *)loop, (PyObject *)self,
                                             method, NULL);
    }
    Py_XDECREF(loop);
    return elsewhere;
#endif
}

/* --- methods ------------------------------------------------------------- */

/* The body of close() and abort().  With a GIL, in debug mode, they raise
   RuntimeError in a thread that does not run the loop; nothing has changed
   then.  0 or -1. */
static int
end(FlTransport *self, bool aborts)
{
    PyObject *loop = fl_field_get(self, (PyObject **)&self->loop);
    int code = 0;
    if (loop != NULL && FL_UNLIKELY(((FlLoop *)loop)->debug)) {
        code = fl_call_method(loop, self->state->names._check_thread, NULL);
    }
    Py_XDECREF(loop);
    return code < 0 ? -1
           : aborts ? self->ops->force_close(self, NULL)
                    : self->ops->close(self);
}

/* A method without arguments whose call is forwarded. */
#define FORWARDED(method, call)                                       \
    static PyObject *transport_##method(FlTransport *self,            \
                                        PyObject *Py_UNUSED(ignored)) \
    {                                                                 \
        PyObject *result;                                             \
        return was_queued(self, self->state->names.method, &result)   \
                   ? result                                           \
                   : fl_call_none(call);                              \
    }

FORWARDED(close, end(self, false))
FORWARDED(abort, end(self, true))
FORWARDED(pause_reading, self->ops->set_paused(self, true))
FORWARDED(resume_reading, self->ops->set_paused(self, false))
FORWARDED(_maybe_pause_protocol, self->ops->control_writing(self))

static PyObject *
force_close(FlTransport *self, PyObject *exc)
{
    return fl_call_none(
        self->ops->force_close(self, exc == Py_None ? NULL : exc));
}

PyObject *
fl_transport_is_closing(FlTransport *self, void *Py_UNUSED(ignored))
{
    int closing = self->ops->is_closing(self);
    return closing < 0 ? NULL : PyBool_FromLong(closing);
}

static PyObject *
is_reading(FlTransport *self, PyObject *Py_UNUSED(ignored))
{
    return PyBool_FromLong(self->ops->is_reading(self));
}

static PyObject *
set_protocol(FlTransport *self, PyObject *protocol)
{
    return fl_call_none(self->ops->set_protocol(self, protocol));
}

PyObject *
fl_transport_get_protocol(FlTransport *self, void *Py_UNUSED(ignored))
{
    PyObject *protocol = self->ops->protocol(self);
    return protocol == NULL ? Py_NewRef(Py_None) : protocol;
}

static PyObject *
get_extra_info(FlTransport *self, PyObject *const *args, Py_ssize_t nargs,
               PyObject *kwnames)
{
    FlParameters parameters = {"get_extra_info",
                               {"name", "default"},
                               .optional = 1};
    FlArgs call;
    return fl_args_parse(&parameters, args, nargs, kwnames, &call) < 0
               ? NULL
               : self->ops->get_extra(self, call.args[0], call.args[1]);
}

static PyObject *
get_write_buffer_size(FlTransport *self, void *Py_UNUSED(ignored))
{
    return PyLong_FromSize_t(self->ops->write_buffer_bytes(self));
}

FL_ONE_ARGUMENT(FlTransport, force_close_one, "_force_close", "exc",
                force_close)
FL_ONE_ARGUMENT(FlTransport, set_protocol_one, "set_protocol", "protocol",
                set_protocol)

/* An entry whose docstring is only the signature: help() then shows that of
   asyncio's class. */
#define METHOD(name, parameters, function, flags) \
    FL_METHOD(name, function, flags, name parameters "\n--\n\n")

static PyMethodDef common_methods[] = {
    METHOD("close", "($self, /)", transport_close, METH_NOARGS),
    METHOD("is_closing", "($self, /)", fl_transport_is_closing, METH_NOARGS),
    METHOD("set_protocol", "($self, protocol)", set_protocol_one, FL_FASTCALL),
    METHOD("get_protocol", "($self, /)", fl_transport_get_protocol,
           METH_NOARGS),
    METHOD("pause_reading", "($self, /)", transport_pause_reading,
           METH_NOARGS),
    METHOD("resume_reading", "($self, /)", transport_resume_reading,
           METH_NOARGS),
    METHOD("is_reading", "($self, /)", is_reading, METH_NOARGS),
    METHOD("abort", "($self, /)", transport_abort, METH_NOARGS),
    METHOD("get_write_buffer_size", "($self, /)", get_write_buffer_size,
           METH_NOARGS),
    METHOD("_force_close", "($self, exc)", force_close_one, FL_FASTCALL),
    METHOD("_maybe_pause_protocol", "($self, /)",
           transport__maybe_pause_protocol, METH_NOARGS),
    FL_METHOD("get_extra_info", get_extra_info, FL_FASTCALL,
              "get_extra_info($self, name, default=None)\n--\n\n"
              "Return information about the transport: 'socket', 'sockname',\n"
              "'peername', or a name given when it was created; default if\n"
              "unknown.  Over TLS also 'sslcontext', 'ssl_object',\n"
              "'peercert', 'cipher', 'compression' and 'tls_engine'\n"
              "('libssl' or 'sslobject').  Other threads may query the\n"
              "ssl_object, but must not call its read, write, unwrap or\n"
              "do_handshake.\n\n"
              "Implements asyncio's BaseTransport.get_extra_info().  After\n"
              "the fd of the socket was obtained, each write is sent\n"
              "immediately."),
    {NULL, NULL, 0, NULL},
};

/* --- helpers of all kinds ------------------------------------------------ */

int
fl_transport_check_data(PyObject *data, const char *format)
{
    if (PyBytes_Check(data) || PyByteArray_Check(data)
        || PyMemoryView_Check(data)) {
        return 0;
    }
    PyObject *name = PyType_GetName(Py_TYPE(data));
    if (name != NULL) {
        PyErr_Format(PyExc_TypeError, format, name);
        Py_DECREF(name);
    }
    return -1;
}

int
fl_transport_report(FlTransport *self, PyObject *exc, const char *message)
{
    FlNames *names = &self->state->names;
    /* Owned: the handler may run the loop, which then lets the transport
       go. */
    FlLoop *loop = (FlLoop *)fl_field_get(self, (PyObject **)&self->loop);
    if (loop == NULL) { /* the failed call or another thread has ended it */
        PyErr_SetRaisedException(Py_NewRef(exc));
        PyErr_WriteUnraisable((PyObject *)self);
        return 0;
    }
    /* The format's N takes this reference.  It is taken before the dict is
       made, because that may run a finalizer that sets another protocol. */
    PyObject *protocol = fl_transport_get_protocol(self, NULL);
    PyObject *context =
        Py_BuildValue("{OsOOOOON}", names->message, message, names->exception,
                      exc, names->transport, (PyObject *)self, names->protocol,
                      protocol);
    int code = -1;
    if (context != NULL) {
        PyObject *outer = fl_error_begin_handling(exc);
        code = fl_call_method((PyObject *)loop, names->call_exception_handler,
                              context);
        fl_error_end_handling(outer);
        Py_DECREF(context);
    }
    if (code < 0) {
        /* The handler itself failed, or there was no memory to call it. */
        code = fl_loop_report_callback(loop, NULL);
    }
    Py_DECREF(loop);
    return code;
}

int
fl_transport_call_flow(FlTransport *self, PyObject *protocol, bool pause)
{
    FlNames *names = &self->state->names;
    if (protocol == NULL) {
        return 0; /* the transport has ended */
    }
    Py_INCREF(self); /* the method may end the connection */
    int code = fl_call_method(
        protocol, pause ? names->pause_writing : names->resume_writing, NULL);
    Py_DECREF(protocol);
    if (code < 0 && !fl_exception_ends_run()) {
        PyObject *exc = PyErr_GetRaisedException();
        code = fl_transport_report(self, exc,
                                   pause ? "protocol.pause_writing() failed"
                                         : "protocol.resume_writing() failed");
        Py_DECREF(exc);
    }
    Py_DECREF(self);
    return code;
}

PyObject *
fl_transport_repr(FlTransport *self, PyObject *details)
{
    PyObject *name = details == NULL ? NULL : PyType_GetName(Py_TYPE(self));
    PyObject *text =
        name == NULL ? NULL : PyUnicode_FromFormat("<%U%U>", name, details);
    Py_XDECREF(name);
    Py_XDECREF(details);
    return text;
}

void
fl_transport_warn_unclosed(FlTransport *self)
{
    if (PyErr_ResourceWarning((PyObject *)self, 1, "unclosed transport %R",
                              (PyObject *)self)
        < 0)
    {
        PyErr_WriteUnraisable((PyObject *)self);
    }
}

/* --- attributes ---------------------------------------------------------- */

PyObject *
fl_transport_true(PyObject *Py_UNUSED(self), void *Py_UNUSED(ignored))
{
    return Py_NewRef(Py_True);
}

PyObject *
fl_water_mark_get(PyObject *owner, void *offset)
{
    const FlWaterMark *mark =
        (const FlWaterMark *)((char *)owner + (size_t)offset);
    return PyLong_FromUnsignedLongLong(*mark);
}

int
fl_water_mark_set(PyObject *owner, PyObject *value, void *offset)
{
    FlWaterMark *mark = (FlWaterMark *)((char *)owner + (size_t)offset);
    if (value == NULL) {
        PyErr_SetString(PyExc_AttributeError, "a water mark is a number");
        return -1;
    }
    /* Buffers are whole numbers of bytes, so a fraction changes nothing.  A
       double has fewer bits than a mark, but no buffer is so large. */
    double number = PyFloat_AsDouble(value);
    if (number == -1.0 && PyErr_Occurred()) {
        return -1;
    }
    *mark = number >= (double)INT64_MAX ? (uint64_t)INT64_MAX
            : number > 0                ? (uint64_t)number
                                        : 0;
    return 0;
}

/* --- types --------------------------------------------------------------- */

PyGetSetDef fl_transport_getset[] = {
    {"__dict__", PyObject_GenericGetDict, PyObject_GenericSetDict, NULL, NULL},
    {"_loop", fl_field_attribute, NULL, NULL,
     (void *)offsetof(FlTransport, loop)},
    {"_high_water", fl_water_mark_get, fl_water_mark_set, NULL,
     (void *)offsetof(FlTransport, high_water_bytes)},
    {"_low_water", fl_water_mark_get, fl_water_mark_set, NULL,
     (void *)offsetof(FlTransport, low_water_bytes)},
    {NULL, NULL, NULL, NULL, NULL},
};

PyMemberDef fl_transport_members[] = {
    {"_protocol_paused", Py_T_BOOL, offsetof(FlTransport, protocol_paused), 0,
     NULL},
    FL_LAST_MEMBERS(FlTransport),
};

/* The base class's slots: see fl_type_derive. */
static const FlBaseSlot base_slots[] = {
    {"_extra", offsetof(FlTransport, extra)},
    {"_high_water", offsetof(FlTransport, slot1)},
    {"_loop", offsetof(FlTransport, slot2)},
    {"_low_water", offsetof(FlTransport, slot3)},
    {"_protocol_paused", offsetof(FlTransport, slot4)},
    {NULL, offsetof(FlTransport, slot4) + sizeof(PyObject *)},
};

/* Steals the descriptor; NULL: making it raised. */
static int
add_descriptor(PyTypeObject *type, const char *name, PyObject *descriptor)
{
    int code = descriptor == NULL ? -1
                                  : PyObject_SetAttrString((PyObject *)type,
                                                           name, descriptor);
    Py_XDECREF(descriptor);
    return code;
}

int
fl_transport_add_attributes(PyTypeObject *type, PyMethodDef *methods,
                            PyGetSetDef *getset)
{
    int code = 0;
    for (; code == 0 && methods != NULL && methods->ml_name; methods++) {
        code = add_descriptor(type, methods->ml_name,
                              PyDescr_NewMethod(type, methods));
    }
    for (; code == 0 && getset != NULL && getset->name; getset++) {
        code = add_descriptor(type, getset->name,
                              PyDescr_NewGetSet(type, getset));
    }
    return code;
}

PyTypeObject *
fl_transport_type_new(PyObject *module, const char *name, size_t size_bytes,
                      PyType_Slot *slots, PyObject *mixin)
{
    PyType_Spec spec = {name, (int)size_bytes, 0,
                        FL_TYPE_FLAGS | FL_DICT_FLAGS, slots};
    PyTypeObject *type =
        fl_type_derive(module, &spec, fl_state_get(module)->asyncio_transport,
                       mixin, base_slots);
    if (type != NULL
        && fl_transport_add_attributes(type, common_methods, NULL) < 0)
    {
        Py_CLEAR(type);
    }
    return type;
}
