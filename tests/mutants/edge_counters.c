/* Clang's counter of each edge of the extension, read and cleared by
   mut_plugin.py.  Every process writes its own into FL_EDGES at its end. */

#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT     __attribute__((visibility("default")))
#define MOST_FILES 400

typedef struct {
    uint8_t *counters;
    size_t size;
    const uintptr_t *places; /* pairs of an address and flags */
} File;

static File files[MOST_FILES];
static size_t number_of_files;

EXPORT void
__sanitizer_cov_8bit_counters_init(uint8_t *start, uint8_t *stop)
{
    for (size_t i = 0; i < number_of_files; i++) {
        if (files[i].counters == start) {
            return;
        }
    }
    files[number_of_files++] =
        (File){.counters = start, .size = (size_t)(stop - start)};
}

/* Called right after the one above, for the same file. */
EXPORT void
__sanitizer_cov_pcs_init(const uintptr_t *start, const uintptr_t *stop)
{
    (void)stop;
    files[number_of_files - 1].places = start;
}

EXPORT size_t
fl_edges_number(void)
{
    size_t sum = 0;
    for (size_t i = 0; i < number_of_files; i++) {
        sum += files[i].size;
    }
    return sum;
}

EXPORT void
fl_edges_take(uint8_t *out)
{
    for (size_t i = 0; i < number_of_files; i++) {
        memcpy(out, files[i].counters, files[i].size);
        memset(files[i].counters, 0, files[i].size);
        out += files[i].size;
    }
}

/* The place of each edge, as an offset in the extension's file. */
EXPORT void
fl_edges_places(uintptr_t *out)
{
    Dl_info info;
    for (size_t i = 0; i < number_of_files; i++) {
        for (size_t n = 0; n < files[i].size; n++) {
            uintptr_t address = files[i].places[2 * n];
            dladdr((const void *)address, &info);
            *out++ = address - (uintptr_t)info.dli_fbase;
        }
    }
}

EXPORT __attribute__((destructor)) void
fl_mutants_dump(void)
{
    static int dumps;
    char path[4096];
    const char *folder = getenv("FL_EDGES");
    if (folder == NULL) {
        return;
    }
    int length = snprintf(path, sizeof path, "%s/%d.%d", folder, (int)getpid(),
                          dumps++);
    int fd = length < (int)sizeof path
                 ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)
                 : -1;
    for (size_t i = 0; fd >= 0 && i < number_of_files; i++) {
        if (write(fd, files[i].counters, files[i].size)
            != (ssize_t)files[i].size) {
            break; /* a file that is short is not read */
        }
    }
    if (fd >= 0) {
        close(fd);
    }
}
