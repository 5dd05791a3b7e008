/* Which protocols have a receiver. */
#include "transport/receiver.h"

#include "py/compat.h"
#include "py/state.h"

void
fl_receiver_register(FlState *state, PyTypeObject *type,
                     const FlReceiver *receiver)
{
    FlReceiverEntry *entry = state->receivers;
    while (entry->type != NULL) {
        entry++;
        FL_CHECK(entry < state->receivers + FL_RECEIVERS, "there is room");
    }
    entry->type = type;
    entry->receiver = receiver;
}

const FlReceiver *
fl_receiver_of(const FlState *state, PyObject *protocol)
{
    for (size_t at = 0; at < FL_RECEIVERS; at++) {
        const FlReceiverEntry *entry = &state->receivers[at];
        if (entry->type != NULL && Py_IS_TYPE(protocol, entry->type)) {
            return entry->receiver;
        }
    }
    return NULL;
}
