/* The TLS engine that calls libssl's own functions.

   Records pass through a BIO of ours, whose state is an FlTlsPipe.  libssl
   reads the peer's records straight from the memory that the stream read them
   into.  Records for the peer accumulate in one block: a bytes object, which
   the stream's queue takes, or plain memory if no write began it.

   1. CPython's SSLObject methods call the BIO's functions without the GIL.
      The functions therefore touch the pipe and its memory alone.  They write
      into a bytes object, but neither make nor size nor free one; PyMem_Raw*
      needs no GIL.  Other threads may ask for the two lengths meanwhile, so
      the BIO's functions store them atomically.  connection.h ("No nested
      engine calls") keeps all else of the pipe from them.
   2. The BIO owns the pipe, the SSL owns the BIO, `owner` owns the SSL, and
      the engine owns `owner`.  So the pipe lives as long as the application
      uses the SSLObject.
   3. Exceptions are CPython's.  If a direct call fails, the SSLObject's read()
      is called while OpenSSL's error queue still has the error, and CPython
      raises it; give_reason covers a CPython that clears the queue first.
      The pipe is `muted` during that call: nothing more is read or sent.
   4. A direct call holds the GIL, but CPython's read(), write(), unwrap() and
      do_handshake() release it.  Two threads in one SSL corrupt it, so no
      other thread may call these four on a connection's SSLObject.  (The same
      holds with asyncio where CPython has no lock.)  Methods that only query,
      such as version(), keep the GIL and are safe.
   5. No other function is called before OpenSSL_version() says "OpenSSL".
      LibreSSL, BoringSSL and AWS-LC export the same names with other
      contracts. */
#include "tls/engine_libssl.h"

#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* OpenSSL's constants, as its headers are not used.  BIO_READ_RETRY is
   BIO_FLAGS_READ and BIO_FLAGS_SHOULD_RETRY: no data at the moment, not
   EOF. */
#define INDEX_OF_SSL          0 /* CRYPTO_EX_INDEX_SSL */
#define SSL_ERROR_WANT_READ   2
#define SSL_ERROR_WANT_WRITE  3
#define SSL_ERROR_SYSCALL     5
#define SSL_ERROR_ZERO_RETURN 6
#define SSL_RECEIVED_SHUTDOWN 2
#define BIO_READ_RETRY        (0x01 | 0x08)
#define BIO_ALL_RETRY         (0x01 | 0x02 | 0x04 | 0x08)
#define BIO_FLUSH             11
/* A record's bytes that are not plain ones, with today's ciphers.  With CBC
   they are more, and make_room moves the records. */
#define RECORD_OVERHEAD_BYTES 32

/* X(result, name, arguments) for each function that is looked up. */
#define LIBSSL_FUNCTIONS(X)                                                  \
    X(const char *, OpenSSL_version, (int what))                             \
    X(int, CRYPTO_get_ex_new_index,                                          \
      (int kind, long argl, void *argp, void *new, void *dup, void *free))   \
    X(void, ERR_clear_error, (void))                                         \
    X(unsigned long, ERR_peek_last_error, (void))                            \
    X(const char *, ERR_reason_error_string, (unsigned long code))           \
    X(void *, SSL_get_ex_data, (const void *ssl, int index))                 \
    X(int, SSL_read_ex, (void *ssl, void *buf, size_t size, size_t *got))    \
    X(int, SSL_write_ex,                                                     \
      (void *ssl, const void *buf, size_t size, size_t *taken))              \
    X(int, SSL_get_error, (const void *ssl, int result))                     \
    X(int, SSL_get_shutdown, (const void *ssl))                              \
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
#define FIELD(result, name, arguments) result(*name) arguments;
    LIBSSL_FUNCTIONS(FIELD)
#undef FIELD
} FlLibssl;

/* What the process shares, like libssl itself: no state of an interpreter.
   The BIO's method is never freed, because any SSL may still use it; it is
   NULL unless the functions were found. */
static FlLibssl libssl;
static void *bio_method;
/* Not the GIL: interpreters with a GIL of their own share all this. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static bool library_searched;
/* The last SSL that this thread has created since fl_libssl_find; NULL if
   there was none or this thread has freed it. */
static _Thread_local void *last_ssl;

typedef struct FlTlsPipe {
    const char *in; /* the unread records */
    size_t in_bytes;
    char *pending; /* `in` points into this copy, or it is NULL and `in`
                      points into feed's memory */
    size_t pending_capacity;
    /* Records for the peer: in `out`, or in `out_object` if that is NULL.
       Both are NULL if there were none since take. */
    char *out;
    PyObject *out_object; /* a bytes object that nobody else has */
    size_t out_bytes;
    size_t out_capacity;
    bool muted;      /* during the call of invariant 3 */
    bool out_failed; /* bio_write had no memory; not raised yet */
} FlTlsPipe;

/* --- the BIO ------------------------------------------------------------- */

/* No data is a retry and never EOF: EOF is the raw transport's to report. */
static int
bio_read(void *bio, char *to, int size)
{
    FlTlsPipe *pipe = libssl.BIO_get_data(bio);
    libssl.BIO_clear_flags(bio, BIO_ALL_RETRY);
    if (pipe->muted || pipe->in_bytes == 0) {
        libssl.BIO_set_flags(bio, BIO_READ_RETRY);
        return -1;
    }
    size_t count = size < 0 ? 0 : Py_MIN((size_t)size, pipe->in_bytes);
    __atomic_store_n(&pipe->in_bytes, pipe->in_bytes - count,
                     __ATOMIC_RELAXED);
    memcpy(to, pipe->in, count);
    pipe->in += count;
    return (int)count;
}

/* Ensure space for `more` bytes.  What does not fit the bytes object moves to
   plain memory, whose capacity doubles.
   false: no memory.  do_handshake() and unwrap() do not always raise then:
   they would wait for the peer.  So at least one byte counts as ready: the
   caller calls libssl_take, which raises. */
static bool
make_room(FlTlsPipe *pipe, size_t more)
{
    size_t needed = pipe->out_bytes + more;
    if (needed <= pipe->out_capacity) {
        return true;
    }
    size_t capacity = Py_MAX(2 * pipe->out_capacity, needed);
    char *out = PyMem_RawRealloc(pipe->out, capacity);
    if (out == NULL) {
        pipe->out_failed = true;
        __atomic_store_n(&pipe->out_bytes, Py_MAX(pipe->out_bytes, 1),
                         __ATOMIC_RELAXED);
        return false;
    }
    if (pipe->out == NULL && pipe->out_object != NULL) {
        memcpy(out, PyBytes_AS_STRING(pipe->out_object), pipe->out_bytes);
    }
    pipe->out = out;
    pipe->out_capacity = capacity;
    return true;
}

static int
bio_write(void *bio, const char *from, int size)
{
    FlTlsPipe *pipe = libssl.BIO_get_data(bio);
    /* A write never has to be retried: the block grows as needed. */
    libssl.BIO_clear_flags(bio, BIO_ALL_RETRY);
    if (size <= 0) {
        return 0;
    }
    if (pipe->muted) {
        return size; /* discarded: an error could not be handled */
    }
    if (!make_room(pipe, (size_t)size)) {
        return -1; /* no retry flag: libssl reports SSL_ERROR_SYSCALL */
    }
    size_t at = pipe->out_bytes;
    __atomic_store_n(&pipe->out_bytes, at + (size_t)size, __ATOMIC_RELAXED);
    char *out =
        pipe->out != NULL ? pipe->out : PyBytes_AS_STRING(pipe->out_object);
    memcpy(out + at, from, (size_t)size);
    return size;
}

/* OpenSSL needs BIO_FLUSH to succeed; 0 is the answer to unknown commands. */
static long
bio_ctrl(void *Py_UNUSED(bio), int command, long Py_UNUSED(larg),
         void *Py_UNUSED(more))
{
    return command == BIO_FLUSH;
}

/* Runs when the SSL is freed, which CPython does with the GIL alone.  The
   engine keeps the SSL alive through `owner`, so nothing dangles. */
static int
bio_destroy(void *bio)
{
    FlTlsPipe *pipe = libssl.BIO_get_data(bio);
    PyMem_RawFree(pipe->pending);
    PyMem_RawFree(pipe->out);
    Py_XDECREF(pipe->out_object);
    PyMem_RawFree(pipe);
    return 1;
}

/* --- libssl -------------------------------------------------------------- */

/* OpenSSL has created an SSL.  Runs in any thread, with or without the GIL, so
   it touches nothing but thread-local data. */
static void
on_ssl_new(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
           int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    last_ssl = ssl;
}

/* OpenSSL frees an SSL.  In another thread than the one that created it this
   clears that thread's last_ssl, not the creator's, which then dangles. */
static void
on_ssl_free(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
            int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (last_ssl == ssl) {
        last_ssl = NULL;
    }
}

/* dlsym searches the object and its dependencies, so _ssl's own file finds the
   libssl that it is linked with, or contains. */
static bool
find_library(const char *file)
{
    /* RTLD_NOLOAD: find the object that Python has loaded, never load a
       second copy. */
    void *symbol, *handle = dlopen(file, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == NULL) {
        return false;
    }
    bool found = true;
    /* dlsym returns an object pointer.  POSIX guarantees that it also holds a
       function pointer, ISO C does not allow the cast: hence memcpy. */
#define FIND(result, name, arguments)              \
    symbol = dlsym(handle, #name);                 \
    memcpy(&libssl.name, &symbol, sizeof(symbol)); \
    found = found && symbol != NULL;
    LIBSSL_FUNCTIONS(FIND)
#undef FIND
    found = found && strncmp(libssl.OpenSSL_version(0), "OpenSSL ", 8) == 0
            && libssl.CRYPTO_get_ex_new_index(INDEX_OF_SSL, 0, NULL,
                                              (void *)on_ssl_new, NULL,
                                              (void *)on_ssl_free)
                   >= 0;
    if (!found) {
        (void)dlclose(handle);
    }
    return found; /* the handle stays open and keeps the library loaded */
}

/* On failure bio_method stays NULL, and every connection uses the other
   engine.  Type 0: we never search for the BIO by its type. */
static void
make_method(void)
{
    void *method = libssl.BIO_meth_new(0, "fastloop");
    if (method != NULL && libssl.BIO_meth_set_read(method, bio_read)
        && libssl.BIO_meth_set_write(method, bio_write)
        && libssl.BIO_meth_set_ctrl(method, bio_ctrl)
        && libssl.BIO_meth_set_destroy(method, bio_destroy))
    {
        bio_method = method;
    }
}

bool
fl_libssl_find(const char *file)
{
    (void)pthread_mutex_lock(&library_lock);
    if (!library_searched) {
        library_searched = true;
        if (find_library(file)) {
            make_method();
        }
    }
    bool usable = bio_method != NULL;
    (void)pthread_mutex_unlock(&library_lock);
    last_ssl = NULL;
    return usable;
}

/* --- records in ---------------------------------------------------------- */

static void
free_pending(FlTlsPipe *pipe)
{
    PyMem_RawFree(pipe->pending);
    pipe->pending = NULL;
}

/* Have `pending` hold the unread records and, behind them, these.  They move
   to the block's front if they fill at most half of it.  A block that is too
   small is replaced by one with a quarter to spare.  So each byte is moved a
   bounded number of times.  0, or -1 with MemoryError. */
static int
keep_records(FlTlsPipe *pipe, const char *data, size_t size_bytes)
{
    size_t needed = pipe->in_bytes + size_bytes;
    char *pending = pipe->pending;
    size_t capacity = pipe->pending_capacity;
    bool fits =
        pending != NULL && (size_t)(pipe->in - pending) + needed <= capacity;
    if (!fits && pending != NULL && needed <= capacity / 2) {
        memmove(pending, pipe->in, pipe->in_bytes);
        pipe->in = pending;
    }
    else if (!fits) {
        capacity = needed + needed / 4;
        pending = PyMem_RawMalloc(capacity);
        if (pending == NULL) {
            PyErr_NoMemory();
            return -1;
        }
        memcpy(pending, pipe->in, pipe->in_bytes);
        free_pending(pipe);
        pipe->in = pipe->pending = pending;
        pipe->pending_capacity = capacity;
    }
    memcpy((char *)pipe->in + pipe->in_bytes, data, size_bytes);
    pipe->in_bytes = needed;
    return 0;
}

/* Cheap in the usual case: the event's records have all been read. */
static int
libssl_settle(FlTlsEngine *engine)
{
    FlTlsPipe *pipe = engine->pipe;
    if (pipe->in_bytes == 0) {
        free_pending(pipe); /* an idle connection owns no buffer */
        return 0;
    }
    if (pipe->pending == NULL && keep_records(pipe, "", 0) < 0) {
        pipe->in_bytes = 0; /* `in` would dangle once feed's caller returns */
        return -1;
    }
    return 0;
}

/* The usual case reads in place and copies nothing.  In a nested call, `in`
   may still point into the outer caller's memory. */
static int
libssl_feed(FlTlsEngine *engine, const char *data, size_t size_bytes)
{
    FlTlsPipe *pipe = engine->pipe;
    if (pipe->in_bytes > 0) {
        return keep_records(pipe, data, size_bytes);
    }
    free_pending(pipe);
    pipe->in = data;
    pipe->in_bytes = size_bytes;
    return 0;
}

/* --- plain bytes --------------------------------------------------------- */

/* Have the raised exception say OpenSSL's reason, also if CPython has cleared
   the queue before its read() (gh-148594). */
FL_NOINLINE static void
give_reason(const FlTlsEngine *engine, const char *text)
{
    PyObject *exc = PyErr_GetRaisedException();
    PyObject *words = PyUnicode_FromString(text);
    PyObject *named =
        words == NULL
            ? NULL
            : PyObject_CallMethodObjArgs(engine->state->tls,
                                         engine->state->names.with_reason, exc,
                                         words, NULL);
    Py_XDECREF(words);
    Py_DECREF(exc);
    if (named != NULL) {
        PyErr_SetRaisedException(named);
    }
}

/* The result of a direct call that failed; raises as invariant 3 says. */
static FlTlsResult
libssl_failure(FlTlsEngine *engine, int status)
{
    if (PyErr_Occurred()) {
        return FL_TLS_RAISED; /* a Python callback of the context did */
    }
    /* libssl only reports that the BIO has failed, not why. */
    if (engine->pipe->out_failed) {
        engine->pipe->out_failed = false;
        engine->pipe->out_bytes = 0; /* also what make_room counted */
        PyErr_NoMemory();
        return FL_TLS_RAISED;
    }
    int error = libssl.SSL_get_error(engine->ssl, status);
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE) {
        return FL_TLS_WANT_READ;
    }
    unsigned long code = libssl.ERR_peek_last_error();
    /* From 3.2 on OpenSSL takes a close_notify behind another warning, which
       Java's sockets send, for a BIO that failed (openssl#25254). */
    if (error == SSL_ERROR_ZERO_RETURN
        || (error == SSL_ERROR_SYSCALL && code == 0
            && (libssl.SSL_get_shutdown(engine->ssl) & SSL_RECEIVED_SHUTDOWN)))
    {
        return FL_TLS_END;
    }
    const char *text = code == 0 ? NULL : libssl.ERR_reason_error_string(code);
    engine->pipe->muted = true;
    /* read() is expected to fail with the error that is in the queue. */
    PyObject *one = PyLong_FromLong(1);
    PyObject *data =
        one == NULL
            ? NULL
            : PyObject_CallMethodOneArg(engine->object,
                                        engine->state->names.read, one);
    engine->pipe->muted = false;
    Py_XDECREF(one);
    if (data != NULL) { /* it did not fail after all */
        Py_DECREF(data);
        PyErr_SetString(engine->state->tls_error,
                        "TLS failed for an unknown reason");
    }
    /* SSLError is one; a KeyboardInterrupt stays. */
    if (text != NULL && PyErr_ExceptionMatches(PyExc_OSError)) {
        give_reason(engine, text);
    }
    return FL_TLS_RAISED;
}

static FlTlsResult
libssl_read(FlTlsEngine *engine, char *memory, size_t room_bytes,
            size_t *got_bytes)
{
    *got_bytes = 0;
    if (engine->pipe->in_bytes == 0 && !engine->more) {
        return FL_TLS_WANT_READ; /* saves a call: libssl has nothing to read */
    }
    /* SSL_get_error also looks at errors that others left in the queue. */
    libssl.ERR_clear_error();
    int status =
        libssl.SSL_read_ex(engine->ssl, memory, room_bytes, got_bytes);
    if (FL_LIKELY(status == 1 && !PyErr_Occurred())) {
        /* libssl may have more plain bytes of this record. */
        engine->more = *got_bytes == room_bytes;
        return FL_TLS_DONE;
    }
    engine->more = false;
    return libssl_failure(engine, status);
}

/* Give the bytes object this size; make it if there is none.  0, or -1 with
   MemoryError, and the object and its records are gone. */
static int
size_object(FlTlsPipe *pipe, size_t size_bytes)
{
    Py_ssize_t size = (Py_ssize_t)size_bytes;
    if (pipe->out_object == NULL) {
        pipe->out_object = PyBytes_FromStringAndSize(NULL, size);
    }
    else {
        (void)_PyBytes_Resize(&pipe->out_object, size); /* NULL if it fails */
    }
    return pipe->out_object == NULL ? -1 : 0;
}

static FlTlsResult
libssl_write(FlTlsEngine *engine, const char *data, size_t size_bytes,
             size_t *taken_bytes)
{
    FlTlsPipe *pipe = engine->pipe;
    *taken_bytes = 0;
    /* So that bio_write allocates nothing for these records. */
    size_t needed =
        pipe->out_bytes + size_bytes
        + ((size_bytes - 1) / FL_TLS_RECORD_BYTES + 1) * RECORD_OVERHEAD_BYTES;
    if (pipe->out == NULL && needed > pipe->out_capacity) {
        pipe->out_capacity = Py_MAX(2 * pipe->out_capacity, needed);
        if (size_object(pipe, pipe->out_capacity) < 0) {
            pipe->out_bytes = pipe->out_capacity = 0;
            return FL_TLS_RAISED;
        }
    }
    libssl.ERR_clear_error();
    int status =
        libssl.SSL_write_ex(engine->ssl, data, size_bytes, taken_bytes);
    return FL_LIKELY(status == 1 && !PyErr_Occurred())
               ? FL_TLS_DONE
               : libssl_failure(engine, status);
}

/* --- the engine ---------------------------------------------------------- */

static size_t
libssl_outgoing(const FlTlsEngine *engine)
{
    return __atomic_load_n(&engine->pipe->out_bytes, __ATOMIC_RELAXED);
}

/* Without what libssl has decrypted and not returned; `engine.more` covers
   that. */
static size_t
libssl_incoming(const FlTlsEngine *engine)
{
    return __atomic_load_n(&engine->pipe->in_bytes, __ATOMIC_RELAXED);
}

/* An idle connection owns no block. */
static PyObject *
libssl_take(FlTlsEngine *engine)
{
    FlTlsPipe *pipe = engine->pipe;
    if (pipe->out_failed) {
        Py_CLEAR(pipe->out_object);
        PyErr_NoMemory();
    }
    else if (size_object(pipe, pipe->out_bytes) == 0 && pipe->out != NULL) {
        memcpy(PyBytes_AS_STRING(pipe->out_object), pipe->out,
               pipe->out_bytes);
    }
    PyObject *bytes = pipe->out_object;
    PyMem_RawFree(pipe->out);
    pipe->out = NULL;
    pipe->out_object = NULL;
    pipe->out_bytes = pipe->out_capacity = 0;
    pipe->out_failed = false;
    return bytes;
}

/* The contract of each function is in engine.h. */
static const FlTlsEngineType engine_libssl = {
    .name = "libssl",
    .feed = libssl_feed,
    .settle = libssl_settle,
    .read = libssl_read,
    .write = libssl_write,
    .incoming = libssl_incoming,
    .outgoing = libssl_outgoing,
    .take = libssl_take,
};

int
fl_tls_engine_take_ssl(FlTlsEngine *engine, PyObject *owner)
{
    void *ssl = last_ssl;
    /* CPython stores its _sslobj at index 0 (SSL_set_app_data).  Another value
       means that the last SSL is not this SSLObject's. */
    if (ssl == NULL || libssl.SSL_get_ex_data(ssl, 0) != owner) {
        return 0;
    }
    FlTlsPipe *pipe = PyMem_RawCalloc(1, sizeof(*pipe));
    void *bio = pipe == NULL ? NULL : libssl.BIO_new(bio_method);
    if (bio == NULL) {
        PyMem_RawFree(pipe);
        PyErr_NoMemory();
        return -1;
    }
    libssl.BIO_set_data(bio, pipe); /* the BIO frees it: bio_destroy */
    /* OpenSSL refuses to read from or write to a BIO without this. */
    libssl.BIO_set_init(bio, 1);
    /* One reference for both directions; frees the MemoryBIOs' BIOs. */
    libssl.SSL_set_bio(ssl, bio, bio);
    engine->type = &engine_libssl;
    engine->pipe = pipe;
    engine->owner = Py_NewRef(owner);
    engine->ssl = ssl;
    return 1;
}
