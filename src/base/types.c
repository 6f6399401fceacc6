/* What runs when a local with a cleanup attribute goes out of scope. Keeps errno, so that it can be
 * returned. */
#include "base/types.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void auto_free_fn(void *ptr_to_ptr)
{
    void *p;

    /* The local may be any pointer type; only its bytes are known to be a pointer. */
    memcpy(&p, ptr_to_ptr, sizeof(p));
    free(p);
}

void auto_close_fn(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        close(*fd);
    errno = saved;
}
