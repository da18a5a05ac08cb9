/* What flock does on NFSv4, for LD_PRELOAD: the server knows byte-range locks alone, so a shared lock needs a descriptor
   that may read, and an exclusive one a descriptor that may write (Linux, fs/nfs/nfs4proc.c, nfs4_proc_lock). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>

int flock(int descriptor, int operation)
{
    int (*of_kernel)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "flock");
    int refused = (operation & LOCK_SH) ? O_WRONLY : (operation & LOCK_EX) ? O_RDONLY : -1;

    if ((fcntl(descriptor, F_GETFL) & O_ACCMODE) == refused) {
        errno = EBADF;
        return -1;
    }
    return of_kernel(descriptor, operation);
}
