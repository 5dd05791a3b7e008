/* _core.TlsAdapter, the Python face of a filter, and how one is made. */
#ifndef FL_TLS_ADAPTER_H
#define FL_TLS_ADAPTER_H

#include "tls/connection.h"

/* Add the types, open_tls() and the filter's receiver.  0 or -1. */
int fl_tls_register(PyObject *module, FlState *state);

#endif
