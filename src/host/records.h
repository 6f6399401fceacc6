/*
 * The records of this host's guests, in SQLite: <root>/trapeze.db. Any number of processes use it at once, and any of them
 * may be killed at any moment. A record is what was known last; whether a guest lives is told by its lock (host/guest.h).
 */
#ifndef HOST_RECORDS_H
#define HOST_RECORDS_H

#include "base/err.h"

#define RECORD_ID_LEN 12
#define RECORD_NAME_SIZE 64
#define RECORD_NO_STATUS (-1) /* it ended without saying how */

struct records;

enum record_state { RECORD_RUNNING, RECORD_ENDED };

struct record {
    char id[RECORD_ID_LEN + 1]; /* lower-case hexadecimal digits */
    char name[RECORD_NAME_SIZE];
    char *config;   /* options as vm_options_print() writes them, paths absolute */
    bool transient; /* the record goes when the guest ends: it runs in a foreground */
    enum record_state state;
    int pid;                           /* while running */
    int status;                        /* exit status, or RECORD_NO_STATUS */
    char *reason;                      /* of an end with an error; may be NULL */
    s64 created_s, started_s, ended_s; /* since 1970; 0: not yet */
};

void record_fini(struct record *r); /* zeroed is fine */

/* Opens the records in this file and makes it when it is not there. */
int records_open(const char *path, struct records **ret_records, struct err *err);
void records_close(struct records *r); /* NULL is fine */

/* Several calls as one change: all of it, or nothing if the process dies before records_commit(). */
int records_begin(struct records *r, struct err *err);
int records_commit(struct records *r, struct err *err);
void records_rollback(struct records *r); /* no-op when nothing has begun */

int records_add(struct records *r, const struct record *record,
                struct err *err); /* -EEXIST: the id or the name is taken */
int records_update(struct records *r, const struct record *record,
                   struct err *err); /* all but id and created; -EEXIST, -ENOENT */
int records_remove(struct records *r, const char *id, struct err *err);
int records_get(struct records *r, const char *id, struct record *ret_record,
                struct err *err); /* -ENOENT */
/* All, in the order of their creation. The array and its records are the caller's: records_free_list(). */
int records_list(struct records *r, struct record **ret_list, size_t *ret_count, struct err *err);
void records_free_list(struct record *list, size_t count);

#endif
