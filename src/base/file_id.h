/* Which file an fd refers to: after a close() the system may give the fd to
   another one.

   Threads: any. */
#ifndef FL_BASE_FILE_ID_H
#define FL_BASE_FILE_ID_H

#include <stdint.h>
#include <sys/stat.h>

/* Device and inode of the fd's file in one number, which two files are most
   unlikely to share; 0 if the system does not tell, as for a closed fd. */
static inline uint64_t
fl_file_id(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0
               ? (uint64_t)status.st_dev << 32 ^ (uint64_t)status.st_ino
               : 0;
}

#endif
