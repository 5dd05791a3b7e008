/* The table of native protocols: it is in the module state, because the types
   belong to one interpreter. */
#include "transport/native_protocol.h"

#include "py/compat.h"
#include "py/state.h"

void
fl_native_protocol_register(FlState *state, PyTypeObject *type,
                            const FlNativeProtocol *native)
{
    FlNativeProtocolEntry *entry = state->native_protocols;
    /* A type of NULL marks a free entry. */
    while (entry->type != NULL) {
        entry++;
        FL_CHECK(entry < state->native_protocols + FL_NATIVE_PROTOCOLS,
                 "FL_NATIVE_PROTOCOLS is large enough");
    }
    entry->type = type;
    entry->native = native;
}

const FlNativeProtocol *
fl_native_protocol_of(const FlState *state, PyObject *protocol)
{
    for (size_t at = 0; at < FL_NATIVE_PROTOCOLS; at++) {
        const FlNativeProtocolEntry *entry = &state->native_protocols[at];
        /* Exact: a subclass may override the methods. */
        if (entry->type != NULL && Py_IS_TYPE(protocol, entry->type)) {
            return entry->native;
        }
    }
    return NULL;
}
