/* The engine that reads and writes with libssl's own functions.

   Records go through a BIO of ours (a "pipe"): what the peer sent is read from
   the memory that the stream read it to, what goes to the peer gathers in one
   block, which is sent and freed.

   1. The BIO's functions run without the GIL when CPython's methods of the
      SSLObject call them, from whichever thread: they touch the pipe and
      nothing of Python.
   2. The pipe belongs to the BIO, the BIO to the SSL, and that to `owner`,
      which the engine owns.  Detached it answers that there is nothing yet,
      for a program may use its SSLObject as long as it likes.
   3. Errors are CPython's: after a direct call that failed, the SSLObject is
      asked to read while OpenSSL's queue still has the error, and raises.
      The pipe is `muted` meanwhile: nothing more is read or sent.
   4. A direct call holds the GIL, but CPython's read(), write(), unwrap() and
      do_handshake() let go of it: no other thread may call those of the
      SSLObject that a connection uses (nor with asyncio, where CPython has no
      lock for it).  What only answers, as version(), keeps the GIL. */
#include "tls/engine_libssl.h"

#include "py/compat.h"
#include "py/state.h"
#include "tls/engine.h"
#include "tls/libssl.h"

#include <pthread.h>
#include <string.h>

/* OpenSSL's flags of a BIO that has nothing at the moment. */
#define BIO_READ_RETRY (0x01 | 0x08)
#define BIO_ALL_RETRY  (0x01 | 0x02 | 0x04 | 0x08)
/* and what it asks of one. */
#define BIO_PENDING    10
#define BIO_FLUSH      11
#define BIO_WPENDING   13
/* A record has at most so many plain bytes, and so many others. */
#define RECORD_BYTES   (16 * 1024)
#define RECORD_EXTRA   128
#define LEAST_BYTES    1024

typedef struct FlTlsPipe {
    const char *in; /* what is to be read */
    size_t in_bytes;
    bool in_is_pending; /* `in` points into `kept`; else it is the caller's */
    char *pending;
    size_t kept_bytes;
    char *out;
    size_t out_bytes;
    size_t out_room;
    size_t out_expected; /* how much the running write will make */
    bool detached;       /* for good */
    bool muted;
    bool out_failed; /* there was no memory for a record */
} FlTlsPipe;

/* --- the BIO ------------------------------------------------------------- */

static bool
is_off(const FlTlsPipe *pipe)
{
    return pipe == NULL || pipe->detached || pipe->muted;
}

/* Of the process, as libssl's functions are; see make_method. */
static pthread_once_t bio_method_once = PTHREAD_ONCE_INIT;
static void *bio_method;

static int
bio_read(void *bio, char *to, int size)
{
    FlTlsPipe *pipe = fl_libssl.BIO_get_data(bio);
    fl_libssl.BIO_clear_flags(bio, BIO_ALL_RETRY);
    if (is_off(pipe) || pipe->in_bytes == 0) {
        fl_libssl.BIO_set_flags(bio, BIO_READ_RETRY);
        return -1;
    }
    size_t count = size < 0 ? 0 : (size_t)size;
    if (count > pipe->in_bytes) {
        count = pipe->in_bytes;
    }
    memcpy(to, pipe->in, count);
    pipe->in += count;
    pipe->in_bytes -= count;
    return (int)count;
}

/* Room for so many bytes more.  false: there is no memory. */
static bool
make_room(FlTlsPipe *pipe, size_t more)
{
    size_t needed = pipe->out_bytes + more;
    if (needed <= pipe->out_room) {
        return true;
    }
    size_t room = 2 * pipe->out_room;
    if (room < needed) {
        room = needed;
    }
    if (room < pipe->out_expected) {
        room = pipe->out_expected;
    }
    if (room < LEAST_BYTES) {
        room = LEAST_BYTES;
    }
    char *out = PyMem_RawRealloc(pipe->out, room);
    if (out == NULL) {
        pipe->out_failed = true;
        return false;
    }
    pipe->out = out;
    pipe->out_room = room;
    return true;
}

static int
bio_write(void *bio, const char *from, int size)
{
    FlTlsPipe *pipe = fl_libssl.BIO_get_data(bio);
    fl_libssl.BIO_clear_flags(bio, BIO_ALL_RETRY);
    if (size <= 0) {
        return 0;
    }
    if (is_off(pipe)) {
        return size; /* it goes nowhere */
    }
    if (!make_room(pipe, (size_t)size)) {
        return -1;
    }
    memcpy(pipe->out + pipe->out_bytes, from, (size_t)size);
    pipe->out_bytes += (size_t)size;
    return size;
}

static long
bio_ctrl(void *bio, int what, long Py_UNUSED(number), void *Py_UNUSED(more))
{
    FlTlsPipe *pipe = fl_libssl.BIO_get_data(bio);
    if (what == BIO_FLUSH) {
        return 1;
    }
    if (pipe == NULL) {
        return 0;
    }
    if (what == BIO_PENDING) {
        return (long)pipe->in_bytes;
    }
    return what == BIO_WPENDING ? (long)pipe->out_bytes : 0;
}

static int
bio_destroy(void *bio)
{
    FlTlsPipe *pipe = fl_libssl.BIO_get_data(bio);
    fl_libssl.BIO_set_data(bio, NULL);
    if (pipe != NULL) {
        PyMem_RawFree(pipe->pending);
        PyMem_RawFree(pipe->out);
        PyMem_RawFree(pipe);
    }
    return 1;
}

static void
make_method(void)
{
    void *method = fl_libssl.BIO_meth_new(0, "fastloop");
    if (method != NULL && fl_libssl.BIO_meth_set_read(method, bio_read)
        && fl_libssl.BIO_meth_set_write(method, bio_write)
        && fl_libssl.BIO_meth_set_ctrl(method, bio_ctrl)
        && fl_libssl.BIO_meth_set_destroy(method, bio_destroy))
    {
        bio_method = method;
    }
}

/* --- records in ---------------------------------------------------------- */

/* Behind what is kept already.  0 or -1. */
static int
keep_more(FlTlsPipe *pipe, const char *data, size_t size_bytes)
{
    size_t offset = (size_t)(pipe->in - pipe->pending);
    size_t needed = pipe->in_bytes + size_bytes;
    if (offset + needed > pipe->kept_bytes) {
        if (needed > pipe->kept_bytes / 2) {
            char *pending = PyMem_RawMalloc(2 * needed);
            if (pending == NULL) {
                return -1;
            }
            memcpy(pending, pipe->in, pipe->in_bytes);
            PyMem_RawFree(pipe->pending);
            pipe->pending = pending;
            pipe->kept_bytes = 2 * needed;
        }
        else {
            memmove(pipe->pending, pipe->in, pipe->in_bytes);
        }
        pipe->in = pipe->pending;
    }
    memcpy((char *)pipe->in + pipe->in_bytes, data, size_bytes);
    pipe->in_bytes = needed;
    return 0;
}

static int
libssl_settle(FlTlsEngine *engine)
{
    FlTlsPipe *pipe = engine->pipe;
    if (pipe->in_bytes == 0) {
        PyMem_RawFree(pipe->pending);
        pipe->pending = NULL;
        pipe->in = NULL;
        pipe->in_is_pending = false;
        return 0;
    }
    if (pipe->in_is_pending) {
        return 0;
    }
    char *pending = PyMem_RawMalloc(pipe->in_bytes);
    if (pending == NULL) {
        pipe->in_bytes = 0;
        PyErr_NoMemory();
        return -1;
    }
    memcpy(pending, pipe->in, pipe->in_bytes);
    PyMem_RawFree(pipe->pending);
    pipe->pending = pending;
    pipe->kept_bytes = pipe->in_bytes;
    pipe->in = pending;
    pipe->in_is_pending = true;
    return 0;
}

static int
libssl_feed(FlTlsEngine *engine, const char *data, size_t size_bytes)
{
    FlTlsPipe *pipe = engine->pipe;
    if (pipe->in_bytes == 0) {
        pipe->in = data;
        pipe->in_bytes = size_bytes;
        pipe->in_is_pending = false;
        return 0;
    }
    /* What the caller of a call further up has fed is not kept yet. */
    if (libssl_settle(engine) < 0) {
        return -1;
    }
    if (keep_more(pipe, data, size_bytes) < 0) {
        PyErr_NoMemory();
        return -1;
    }
    return 0;
}

/* --- plain bytes --------------------------------------------------------- */

/* What a direct call that failed means (invariant 3). */
static FlTlsResult
judge(FlTlsEngine *engine, int answer)
{
    if (PyErr_Occurred()) {
        return FL_TLS_RAISED; /* a callback of the program's did */
    }
    if (engine->pipe->out_failed) {
        engine->pipe->out_failed = false;
        PyErr_NoMemory();
        return FL_TLS_RAISED;
    }
    int error = fl_libssl.SSL_get_error(engine->ssl, answer);
    if (error == FL_SSL_WANT_READ || error == FL_SSL_WANT_WRITE) {
        return FL_TLS_AGAIN;
    }
    if (error == FL_SSL_ZERO_RETURN) {
        return FL_TLS_END;
    }
    engine->pipe->muted = true;
    PyObject *one = PyLong_FromLong(1);
    PyObject *data =
        one == NULL
            ? NULL
            : PyObject_CallMethodOneArg(engine->object,
                                        engine->state->names.read, one);
    engine->pipe->muted = false;
    Py_XDECREF(one);
    if (data != NULL) {
        Py_DECREF(data);
        PyErr_SetString(engine->state->tls_error,
                        "TLS failed for a reason unknown");
    }
    return FL_TLS_RAISED;
}

static FlTlsResult
libssl_read(FlTlsEngine *engine, char *memory, size_t room_bytes,
            size_t *got_bytes)
{
    *got_bytes = 0;
    if (engine->pipe->in_bytes == 0 && !engine->more) {
        return FL_TLS_AGAIN; /* without a call that finds it out */
    }
    fl_libssl.ERR_clear_error();
    int answer =
        fl_libssl.SSL_read_ex(engine->ssl, memory, room_bytes, got_bytes);
    if (FL_LIKELY(answer == 1 && !PyErr_Occurred())) {
        engine->more = *got_bytes == room_bytes;
        return FL_TLS_DONE;
    }
    engine->more = false;
    return judge(engine, answer);
}

static FlTlsResult
libssl_write(FlTlsEngine *engine, const char *data, size_t size_bytes,
             size_t *taken_bytes)
{
    FlTlsPipe *pipe = engine->pipe;
    *taken_bytes = 0;
    pipe->out_expected = pipe->out_bytes + size_bytes
                         + (size_bytes / RECORD_BYTES + 1) * RECORD_EXTRA;
    fl_libssl.ERR_clear_error();
    int answer =
        fl_libssl.SSL_write_ex(engine->ssl, data, size_bytes, taken_bytes);
    pipe->out_expected = 0;
    return FL_LIKELY(answer == 1 && !PyErr_Occurred()) ? FL_TLS_DONE
                                                       : judge(engine, answer);
}

/* --- the engine ---------------------------------------------------------- */

static size_t
libssl_incoming(const FlTlsEngine *engine)
{
    return engine->pipe->in_bytes;
}

static size_t
libssl_outgoing(const FlTlsEngine *engine)
{
    return engine->pipe->out_bytes;
}

static int
libssl_take(FlTlsEngine *engine, FlTlsOutput *output)
{
    FlTlsPipe *pipe = engine->pipe;
    output->bytes = NULL;
    output->data = output->memory = pipe->out;
    output->size_bytes = pipe->out_bytes;
    pipe->out = NULL;
    pipe->out_bytes = pipe->out_room = 0;
    return 0;
}

static void
libssl_explain(FlTlsEngine *engine)
{
    if (engine->pipe->out_failed) {
        engine->pipe->out_failed = false;
        PyErr_NoMemory();
    }
}

static void
libssl_detach(FlTlsEngine *engine)
{
    FlTlsPipe *pipe = engine->pipe;
    FlTlsOutput output;
    pipe->detached = true;
    pipe->in = NULL;
    pipe->in_bytes = 0;
    (void)libssl_settle(engine);
    (void)libssl_take(engine, &output);
    fl_tls_output_free(&output);
}

const FlTlsEngineType fl_tls_engine_libssl = {
    .name = "libssl",
    .feed = libssl_feed,
    .settle = libssl_settle,
    .read = libssl_read,
    .write = libssl_write,
    .incoming = libssl_incoming,
    .outgoing = libssl_outgoing,
    .take = libssl_take,
    .explain = libssl_explain,
    .detach = libssl_detach,
};

/* The BIO with its pipe, or NULL for want of memory. */
static void *
new_bio(FlTlsPipe **pipe)
{
    void *bio = fl_libssl.BIO_new(bio_method);
    if (bio == NULL) {
        return NULL;
    }
    *pipe = PyMem_RawCalloc(1, sizeof(**pipe));
    if (*pipe == NULL) {
        (void)fl_libssl.BIO_free(bio);
        return NULL;
    }
    fl_libssl.BIO_set_data(bio, *pipe);
    fl_libssl.BIO_set_init(bio, 1);
    return bio;
}

int
fl_tls_engine_take_ssl(FlTlsEngine *engine, void *ssl, PyObject *owner)
{
    if (pthread_once(&bio_method_once, make_method) != 0 || bio_method == NULL)
    {
        return 0;
    }
    /* CPython's own place for its object. */
    if (fl_libssl.SSL_get_ex_data(ssl, 0) != owner) {
        return 0;
    }
    void *bio = new_bio(&engine->pipe);
    if (bio == NULL) {
        PyErr_NoMemory();
        return -1;
    }
    fl_libssl.SSL_set_bio(ssl, bio, bio);
    engine->type = &fl_tls_engine_libssl;
    engine->owner = Py_NewRef(owner);
    engine->ssl = ssl;
    return 1;
}
