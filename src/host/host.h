/*
 * This host: its place, its records, and finding guests by what people type. Opening it looks after every record first: a
 * guest that ended is noted as ended, one that died without a word is said so, and what is left of it is cleaned up.
 */
#ifndef HOST_HOST_H
#define HOST_HOST_H

#include "host/place.h"
#include "host/records.h"

struct host {
    struct place place;
    struct records *records;
};

/* `root`: the value of --root or NULL. */
int host_open(struct host *h, const char *root, struct err *err);
void host_close(struct host *h); /* zeroed is fine */

/* Looks after all records once more, for who has waited for something. */
int host_settle(struct host *h, struct err *err);

/* The guest of this name or id, or whose name or id is the only one that begins so. */
int host_find(struct host *h, const char *text, struct record *ret_record, struct err *err);

#endif
