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
_Thread_local void *fl_last_ssl;

/* OpenSSL has created an SSL.  Runs in any thread, with or without the GIL, so
   it touches nothing but thread-local data. */
static void
on_ssl_new(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
           int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    fl_last_ssl = ssl;
}

/* OpenSSL frees an SSL, perhaps in another thread than that which created it:
   so fl_last_ssl is of use only right after it was cleared. */
static void
on_ssl_free(void *ssl, void *Py_UNUSED(value), void *Py_UNUSED(all),
            int Py_UNUSED(index), long Py_UNUSED(argl), void *Py_UNUSED(argp))
{
    if (fl_last_ssl == ssl) {
        fl_last_ssl = NULL;
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
#define FIND(result, name, arguments)                 \
    symbol = dlsym(handle, #name);                    \
    memcpy(&fl_libssl.name, &symbol, sizeof(symbol)); \
    found = found && symbol != NULL;
    FL_LIBSSL_FUNCTIONS(FIND)
#undef FIND
    found = found && strncmp(fl_libssl.OpenSSL_version(0), "OpenSSL ", 8) == 0
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
