/* libssl's functions, found in the object that holds _ssl.

   1. The look-up is made once a process, whatever it finds: an index that
      OpenSSL gave is never given back, for its callback runs for each SSL.
   2. No function is called before the library says that it is OpenSSL:
      LibreSSL, BoringSSL and AWS-LC have other rules for the same names. */
#include "tls/libssl.h"

#include <dlfcn.h>
#include <pthread.h>
#include <string.h>

#define INDEX_OF_SSL 0 /* CRYPTO_EX_INDEX_SSL */

FlLibssl fl_libssl;
static pthread_mutex_t library_lock = PTHREAD_MUTEX_INITIALIZER;
static bool library_looked_up;
static bool library_usable;
static _Thread_local FlLibsslWindow *window_of_thread;

/* OpenSSL made an SSL, in whatever thread and with or without a GIL. */
static void
note_ssl(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
         int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (window_of_thread != NULL) {
        window_of_thread->ssl = ssl;
    }
}

/* And freed it. */
static void
forget_ssl(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
           int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    FlLibsslWindow *window = window_of_thread;
    for (; window != NULL; window = window->outer) {
        if (window->ssl == ssl) {
            window->ssl = NULL;
        }
    }
}

/* dlsym gives a data pointer, which POSIX says is a function's as well. */
static bool
find(void *handle, const char *name, void *to)
{
    void *found = dlsym(handle, name);
    memcpy(to, &found, sizeof(found));
    return found != NULL;
}

static bool
find_all(void *handle)
{
#define FIND(result, name, arguments)            \
    if (!find(handle, #name, &fl_libssl.name)) { \
        return false;                            \
    }
    FL_LIBSSL_FUNCTIONS(FIND)
#undef FIND
    return true;
}

static bool
look_up(const char *file)
{
    /* It is loaded already: this finds it, and never loads. */
    void *handle = dlopen(file, RTLD_NOLOAD | RTLD_LAZY);
    if (handle == NULL) {
        return false;
    }
    bool found = find_all(handle)
                 && strncmp(fl_libssl.OpenSSL_version(0), "OpenSSL ", 8) == 0
                 && fl_libssl.CRYPTO_get_ex_new_index(INDEX_OF_SSL, 0, NULL,
                                                      (void *)note_ssl, NULL,
                                                      (void *)forget_ssl)
                        >= 0;
    if (!found) {
        (void)dlclose(handle);
    }
    return found; /* the handle keeps the library while the process lives */
}

bool
fl_libssl_find(const char *file)
{
    (void)pthread_mutex_lock(&library_lock);
    if (!library_looked_up) {
        library_looked_up = true;
        library_usable = look_up(file);
    }
    bool usable = library_usable;
    (void)pthread_mutex_unlock(&library_lock);
    return usable;
}

void
fl_libssl_open_window(FlLibsslWindow *window)
{
    window->ssl = NULL;
    window->outer = window_of_thread;
    window_of_thread = window;
}

void *
fl_libssl_close_window(FlLibsslWindow *window)
{
    window_of_thread = window->outer;
    return window->ssl;
}
