/*
 * The lock file of a guest, <root>/guests/<id>/lock. The guest lives exactly as long as its process holds an open file
 * description lock on it, which the kernel drops however the process ends. The file also says who holds it, and how it
 * ended:
 *
 *   pid 1234
 *   away ssh://other      or "here": only once it was about to be handed over to another host (vm/migrate/owner.h)
 *   end 0 1764000000 why, if there was an error
 *
 * A VMM that has locked itself in can still write to the open file.
 */
#ifndef HOST_LOCK_H
#define HOST_LOCK_H

#include "base/err.h"

#define LOCK_PLACE 160

struct lock_end {
    bool away; /* it may run on another host; also when nothing else is known */
    char place[LOCK_PLACE];
    bool known; /* it wrote how it ended */
    int status;
    s64 when_s;
    char reason[400]; /* empty: none */
};

/* Makes the file if need be and takes the lock; empties the file and writes our pid. Returns the descriptor that holds it,
 * -EBUSY when another process does, or -errno. */
int lock_take(const char *path, struct err *err);
/* As lock_take(), but leaves the file as it is: for who only wants to keep others away. */
int lock_hold(const char *path, struct err *err);
/* Writes that it may run elsewhere from now on; place NULL: it is here, and nowhere else. In place, so that what could be
 * written once can be written again on a full disk. */
int lock_write_away(int fd, const char *place, struct err *err);
/* Writes how it ended; the process ends soon afterwards, and with it the lock. */
void lock_write_end(int fd, const struct lock_end *end);

/* Does anybody hold it? false also when there is no such file; true when it cannot be known, for want of descriptors say:
 * who lives must not be taken for dead. */
bool lock_is_held(const char *path);
/* What was written by whoever held it last. */
void lock_read_end(const char *path, struct lock_end *ret_end);
/* A pidfd of the process that holds it, -ESRCH when nobody does. */
int lock_holder(const char *path, int *ret_pid);

#endif
