/*
 * One guest's life in the records and on the disk. Its own process creates or restarts it, and holds its lock until it
 * ends; others look, wait and remove.
 *
 *   guest_create --> running --the lock is dropped--> ended --guest_restart--> running
 *                                                       \--guest_remove--> gone
 */
#ifndef HOST_GUEST_H
#define HOST_GUEST_H

#include "host/host.h"

/* The reason of an end (struct record) that was none: it lives elsewhere, and may come back under its name. */
#define GUEST_MOVED "it runs on another host now"
/* The same, but its process ended before it knew: it may live there. Where follows. */
#define GUEST_HANDED "its process ended after it had been handed over to another host"
bool guest_moved_away(const struct record *record);

/* Held by the guest's process. */
struct guest {
    char id[RECORD_ID_LEN + 1];
    char name[RECORD_NAME_SIZE];
    int lock;     /* open as long as it lives */
    int listener; /* of its control socket */
};

#define GUEST_INIT ((struct guest){.lock = -1, .listener = -1})

/* A new guest of this process. name NULL: the first of vm1, vm2, ... that is free. -EEXIST: another has the name; *err says
 * who. config: see struct record. */
int guest_create(struct host *h, const char *name, const char *config, bool transient,
                 struct guest *ret_guest, struct err *err);
/* This process becomes a guest that has ended. -EBUSY: it runs. */
int guest_restart(struct host *h, const struct record *record, struct guest *ret_guest,
                  struct err *err);
/* Writes down that it may run at that place from now on; NULL: it is here, and nowhere else. Works in the sandbox. */
int guest_away(struct guest *g, const char *place, struct err *err);
/* Writes down how it ended; works in the sandbox. reason may be NULL. */
void guest_end(struct guest *g, int status, const char *reason);
void guest_close(struct guest *g); /* drops the lock; GUEST_INIT is fine */

bool guest_lives(const struct host *h, const char *id);
/* Notes down in the records, and in *record, what the lock says by now. Says so when the guest has died without a word.
 * *ret_gone: it was transient, and its record is gone. */
int guest_settle(struct host *h, struct record *record, bool *ret_gone, struct err *err);
/* Waits until its process has ended, at most timeout_ms (negative: for ever). 0, or -ETIMEDOUT. */
int guest_wait(const struct host *h, const char *id, int timeout_ms);
/* SIGKILL to its process, which then has this exit status, and waits; nothing happens when it does not live. */
int guest_kill(const struct host *h, const char *id, int status, struct err *err);
/* Removes record and folder. -EBUSY: it lives. */
int guest_remove(struct host *h, const struct record *record, struct err *err);
/* Removes folders in guests/ that no record knows, as kill -9 leaves them. */
void guest_sweep_folders(struct host *h);

#endif
