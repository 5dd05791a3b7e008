/* libssl's functions, found in the shared object that contains _ssl.

   1. The lookup runs once per process, whatever its outcome.  It registers an
      ex_data index, which is never freed because OpenSSL runs its callbacks
      for each SSL.  A second lookup would register a second one.
   2. No other function is called before OpenSSL_version() says "OpenSSL".
      LibreSSL, BoringSSL and AWS-LC export the same names with other
      contracts. */
#include "tls/libssl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

/* OpenSSL's headers are not used, so its constant is here. */
#define INDEX_OF_SSL 0 /* CRYPTO_EX_INDEX_SSL */

FlLibssl fl_libssl;
/* Not the GIL: interpreters with a GIL of their own share this. */
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static bool library_searched;
static bool library_usable;
/* The innermost open capture, on the stack of its caller; or NULL. */
static _Thread_local FlSslCapture *thread_capture;

/* OpenSSL has created an SSL.  Runs in any thread, with or without the GIL, so
   it touches nothing but thread-local data. */
static void
on_ssl_new(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
           int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (thread_capture != NULL) {
        thread_capture->ssl = ssl;
    }
}

/* OpenSSL frees an SSL.  No capture may return a dangling pointer, and an SSL
   that an outer capture has captured may be freed inside an inner one. */
static void
on_ssl_free(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
            int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    FlSslCapture *capture = thread_capture;
    for (; capture != NULL; capture = capture->outer) {
        if (capture->ssl == ssl) {
            capture->ssl = NULL;
        }
    }
}

/* dlsym returns an object pointer.  POSIX guarantees that it also holds a
   function pointer, ISO C does not allow the cast: hence memcpy. */
static bool
find_function(void *handle, const char *name, void *to)
{
    void *found = dlsym(handle, name);
    memcpy(to, &found, sizeof(found));
    return found != NULL;
}

static bool
find_functions(void *handle)
{
#define FIND(result, name, arguments)                     \
    if (!find_function(handle, #name, &fl_libssl.name)) { \
        return false;                                     \
    }
    FL_LIBSSL_FUNCTIONS(FIND)
#undef FIND
    return true;
}

/* dlsym searches the object and its dependencies, so _ssl's own file finds the
   libssl that it is linked with, or contains. */
static bool
find_library(const char *file)
{
    /* RTLD_NOLOAD: find the object that Python has loaded, never load a
       second copy. */
    void *handle = dlopen(file, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == NULL) {
        return false;
    }
    bool found = find_functions(handle)
                 && strncmp(fl_libssl.OpenSSL_version(0), "OpenSSL ", 8) == 0
                 && fl_libssl.CRYPTO_get_ex_new_index(INDEX_OF_SSL, 0, NULL,
                                                      (void *)on_ssl_new, NULL,
                                                      (void *)on_ssl_free)
                        >= 0;
    if (!found) {
        (void)dlclose(handle);
    }
    return found; /* the handle stays open and keeps the library loaded */
}

bool
fl_libssl_find(const char *file)
{
    (void)pthread_mutex_lock(&library_lock);
    if (!library_searched) {
        library_searched = true;
        library_usable = find_library(file);
    }
    bool usable = library_usable;
    (void)pthread_mutex_unlock(&library_lock);
    return usable;
}

void
fl_ssl_capture_begin(FlSslCapture *capture)
{
    capture->ssl = NULL;
    capture->outer = thread_capture;
    thread_capture = capture;
}

void *
fl_ssl_capture_end(FlSslCapture *capture)
{
    thread_capture = capture->outer;
    return capture->ssl;
}
