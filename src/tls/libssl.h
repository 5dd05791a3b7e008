/* libssl, as CPython's _ssl has it: its functions, and an SSLObject's SSL.

   Nothing is linked and no header of OpenSSL is used: the functions are looked
   up in the object that holds _ssl and in what that object was linked with.
   The library is a process's, not an interpreter's, and so is what is here: a
   number that OpenSSL gives once, and functions.  Any thread may call.

   The SSL comes from OpenSSL itself, which calls us for each SSL that is made
   (CRYPTO_get_ex_new_index): while a thread's window is open the last one is
   noted.  It is accepted if it holds the SSLObject's _sslobj, which CPython
   stores there.

   Rejected: an offset into CPython's struct (it would be a guess); info, msg
   and keylog callbacks (they overwrite the user's). */
#ifndef FL_TLS_LIBSSL_H
#define FL_TLS_LIBSSL_H

#include "py/compat.h"

#include <stddef.h>

/* What SSL_get_error answers. */
#define FL_SSL_WANT_READ   2
#define FL_SSL_WANT_WRITE  3
#define FL_SSL_ZERO_RETURN 6

/* X(result, name, arguments) */
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
    X(int, BIO_get_new_index, (void))                                        \
    X(void *, BIO_meth_new, (int type, const char *name))                    \
    X(int, BIO_meth_set_read,                                                \
      (void *method, int (*read)(void *bio, char *to, int size)))            \
    X(int, BIO_meth_set_write,                                               \
      (void *method, int (*write)(void *bio, const char *from, int size)))   \
    X(int, BIO_meth_set_ctrl,                                                \
      (void *method, long (*ctrl)(void *bio, int what, long n, void *more))) \
    X(int, BIO_meth_set_destroy, (void *method, int (*destroy)(void *bio)))  \
    X(void *, BIO_new, (const void *method))                                 \
    X(int, BIO_free, (void *bio))                                            \
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

/* To be called only once fl_libssl_find has said true. */
extern FlLibssl fl_libssl;

/* Whether the functions can be had; the answer never changes.  `file` is
   _ssl.__file__. */
bool fl_libssl_find(const char *file);

/* Between these two, calls of the same thread: note the SSL that is made.
   close returns the last one, or NULL.  Windows may nest. */
typedef struct FlLibsslWindow {
    void *ssl;
    struct FlLibsslWindow *outer;
} FlLibsslWindow;

void fl_libssl_open_window(FlLibsslWindow *window);
void *fl_libssl_close_window(FlLibsslWindow *window);

#endif
