/* Which protocols have a receiver. */
#include "transport/native_protocol.h"

#include "py/compat.h"
#include "py/state.h"

void
fl_native_protocol_register(FlState *state, PyTypeObject *type,
                            const FlNativeProtocol *native)
{
    FlNativeProtocolEntry *entry = state->native_protocols;
    while (entry->type != NULL) {
        entry++;
        FL_CHECK(entry < state->native_protocols + FL_NATIVE_PROTOCOLS,
                 "there is room");
    }
    entry->type = type;
    entry->native = native;
}

const FlNativeProtocol *
fl_native_protocol_of(const FlState *state, PyObject *protocol)
{
    for (size_t at = 0; at < FL_NATIVE_PROTOCOLS; at++) {
        const FlNativeProtocolEntry *entry = &state->native_protocols[at];
        if (entry->type != NULL && Py_IS_TYPE(protocol, entry->type)) {
            return entry->native;
        }
    }
    return NULL;
}
