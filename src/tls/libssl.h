/* libssl as CPython's _ssl uses it: its functions, and the SSL of an
   SSLObject.

   We link nothing and use no header of OpenSSL.  The functions are looked up
   with dlsym in the shared object that contains _ssl and in the libraries it
   is linked with.  The library belongs to the process, not to an interpreter,
   so these globals are shared: function pointers and one ex_data index.  Any
   thread may call the functions here.

   OpenSSL itself provides the SSL: it calls us for each SSL that is created
   (CRYPTO_get_ex_new_index).  engine_libssl.c accepts the last one of this
   thread only if its ex_data holds the SSLObject's _sslobj, which CPython
   stores there.

   Rejected: an offset into CPython's struct, because it would be a guess; the
   info, msg and keylog callbacks, because setting them replaces the user's. */
#ifndef FL_TLS_LIBSSL_H
#define FL_TLS_LIBSSL_H

#include "py/compat.h"

#include <stddef.h>

/* Return values of SSL_get_error. */
#define FL_SSL_WANT_READ   2
#define FL_SSL_WANT_WRITE  3
#define FL_SSL_ZERO_RETURN 6

/* X(result, name, arguments) for each function that is looked up. */
#define FL_LIBSSL_FUNCTIONS(X)                                               \
    X(const char *, OpenSSL_version, (int what))                             \
    X(int, CRYPTO_get_ex_new_index,                                          \
      (int kind, long argl, void *argp, void *new, void *dup, void *free))   \
    X(void, ERR_clear_error, (void))                                         \
    X(void *, SSL_get_ex_data, (const void *ssl, int index))                 \
    X(int, SSL_read_ex, (void *ssl, void *buf, size_t size, size_t *got))    \
    X(int, SSL_write_ex,                                                     \
      (void *ssl, const void *buf, size_t size, size_t *taken))              \
    X(int, SSL_get_error, (const void *ssl, int result))                     \
    X(void, SSL_set_bio, (void *ssl, void *reads, void *writes))             \
    X(void *, BIO_meth_new, (int type, const char *name))                    \
    X(int, BIO_meth_set_read,                                                \
      (void *method, int (*read)(void *bio, char *to, int size)))            \
    X(int, BIO_meth_set_write,                                               \
      (void *method, int (*write)(void *bio, const char *from, int size)))   \
    X(int, BIO_meth_set_ctrl,                                                \
      (void *method, long (*ctrl)(void *bio, int what, long n, void *more))) \
    X(int, BIO_meth_set_destroy, (void *method, int (*destroy)(void *bio)))  \
    X(void *, BIO_new, (const void *method))                                 \
    X(void, BIO_set_init, (void *bio, int init))                             \
    X(void, BIO_set_data, (void *bio, void *data))                           \
    X(void *, BIO_get_data, (void *bio))                                     \
    X(void, BIO_set_flags, (void *bio, int flags))                           \
    X(void, BIO_clear_flags, (void *bio, int flags))

typedef struct {
#define FL_LIBSSL_FIELD(result, name, arguments) result(*name) arguments;
    FL_LIBSSL_FUNCTIONS(FL_LIBSSL_FIELD)
#undef FL_LIBSSL_FIELD
} FlLibssl;

/* The functions.  Valid only after fl_libssl_find has returned true. */
extern FlLibssl fl_libssl;

/* Look the functions up; whether all were found.  Only the first call of the
   process searches, and its result never changes.  `file` is _ssl.__file__. */
bool fl_libssl_find(const char *file);

/* The last SSL that this thread has created since it set this to NULL; NULL if
   there was none or this thread has freed it.  Do not use it once another
   thread may have had the SSL, and freed it. */
extern _Thread_local void *fl_last_ssl;

#endif
