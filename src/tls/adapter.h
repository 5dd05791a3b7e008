/* _core.TlsAdapter: the Python type of an FlTls, and the functions that create
   one. */
#ifndef FL_TLS_ADAPTER_H
#define FL_TLS_ADAPTER_H

#include "tls/connection.h"

/* Add both types of this folder and the module functions (open_tls, use_tls),
   and register TlsAdapter's native protocol.  0, or -1 with an exception
   set. */
int fl_tls_register(PyObject *module, FlState *state);

#endif
