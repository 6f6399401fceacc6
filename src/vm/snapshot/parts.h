/* What the files of snapshots share. */
#ifndef VM_SNAPSHOT_PARTS_H
#define VM_SNAPSHOT_PARTS_H

#include "mem/dirty.h"
#include "vm/parts.h"
#include "vm/snapshot/snapshot.h"
#include "vm/snapshot/writer.h"

#define SNAPSHOT_ID_SIZE 40

struct snapshot_overlay {
    unsigned disk;
    int fd;
    char *path;
};

/* One snapshot that is being taken. */
struct snapshot_job {
    struct control_call *call;
    char id[SNAPSHOT_ID_SIZE];
    bool incremental;
    int memory, map_fd, state_fd, kernel_fd; /* kernel: -1 not wanted */
    struct snapshot_overlay overlay[VM_DISKS];
    unsigned noverlays;
    struct snapwriter *writer; /* of `memory`; NULL: not yet, or no more */
    struct snapmap map;
    struct state_buf state;
    u64 copied; /* pages given to the writer, in all rounds */
    unsigned round;
    u64 page_ns; /* what copying a page takes */
    s64 pause_ns;
    atomic_bool cancelled; /* the caller has gone */
    bool stopped;  /* the machine was stopped and everything taken, or it failed; under s->lock */
    bool switched; /* disks write to their overlays */
    struct err err;
};

struct vm_snapshots {
    struct vm *vm;
    pthread_t thread;
    bool started;
    pthread_mutex_t lock; /* protects job, quit and job->stopped */
    pthread_cond_t changed;
    bool quit;
    struct snapshot_job *job;
    bool taken;                   /* the thread works on the job */
    struct control_call *planner; /* waits until there is none; main loop */
    u64 switched;                 /* how often a stop has switched disks; main loop */
    /* What was written since `base` was taken: the log's, and what was collected from it for a snapshot that failed. */
    struct dirty_log log;
    bool logging;
    u64 *since, *bits;
    char base[SNAPSHOT_ID_SIZE]; /* empty: none */
};

/* Notes the pages of `bits` in the job's map and gives them to its writer. In round 0 it lends them: they must be written
 * (snapwriter_drain()) before the machine stops. Returns 0, or -ECANCELED. */
int snapshot_copy(struct vm_snapshots *s, struct snapshot_job *job, const u64 *bits);
/* The round that copies what there is without anything being known: sets the bits of pages that may hold something. */
int snapshot_find_pages(const struct gmem *ram, u64 *ret_bits);
/* A log begins at this moment for the snapshot called id. */
int snapshot_log_from(struct vm_snapshots *s, const char *id, struct err *err);

void snapshot_job_free(struct snapshot_job *job);
void snapshot_answer_planner(struct vm_snapshots *s); /* who waited for the job's end; main loop */
/* The stop (main loop): the last pages, the state, the disks. */
void snapshot_stop(void *snapshots);

#endif
