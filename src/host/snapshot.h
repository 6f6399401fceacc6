/*
 * Snapshots on the disk: each a folder <root>/snapshots/<id>/ that appears whole or not at all.
 *
 *   manifest   what it is: JSON with a checksum of itself
 *   state      how the machine is built (vm/identity.h), then its state (vm/state.h)
 *   memory     RAM with holes, or packed chunks (vm/snapshot/map.h)
 *   map        which pages are in `memory`, with their checksums
 *   kernel     what a reset boots (board_save_kernel()); missing when the machine had none
 *
 * Disks are not in it. Their frozen images lie in <root>/layers/, where every overlay is born and never moves, or where the
 * user put them; the manifest names them from the top down. A layer goes when no manifest, guest or other layer names it.
 *
 * One process at a time changes any of this: it holds snapshots_lock(), for short steps. What takes long goes on without
 * it, in a folder whose name begins with a dot and which its maker has claimed (snapshot_draft.c). Whoever was killed leaves
 * such folders without a claim, and layers that nobody names; the next one that gets the lock removes them and says so.
 */
#ifndef HOST_SNAPSHOT_H
#define HOST_SNAPSHOT_H

#include "host/host.h"
#include "vm/config.h"

#define SNAPSHOT_LAYERS 64
#define SNAPSHOT_LINKS 64 /* in a chain of incremental ones */

struct snapshot_layer {
    char *path; /* absolute */
    char format[8];
};

struct snapshot_disk {
    bool readonly;
    u64 size;                                     /* bytes */
    struct snapshot_layer layer[SNAPSHOT_LAYERS]; /* the top one first */
    unsigned nlayers;
};

struct snapshot {
    char id[RECORD_ID_LEN + 1];
    char name[RECORD_NAME_SIZE];
    char parent[RECORD_ID_LEN + 1]; /* id; empty: a full one */
    char guest[RECORD_NAME_SIZE];
    char accel[16];
    s64 created_ns;          /* since 1970 */
    u64 memory_bytes, pages; /* RAM; pages it holds itself */
    bool compressed;
    struct snapshot_disk *disk; /* VM_DISKS of them */
    unsigned ndisks;
};

void snapshot_fini(struct snapshot *s); /* zeroed is fine */

/* Makes the folders, takes the lock, waiting, and removes what the killed have left. */
int snapshots_lock(struct host *h, int *ret_lock, struct err *err);
/* Drops it, for processes that share the descriptor by fork(), too. -1 is fine. */
void snapshots_let_go(int lock);
void snapshots_unlock(int *lock); /* and closes the descriptor, which is -1 then */

/* <root>/snapshots/<id>/<file>, or the folder (file NULL); the caller's to free. */
char *snapshot_path(const struct host *h, const char *id, const char *file);
/* Opens a file of it for reading. */
int snapshot_open_file(const struct host *h, const char *id, const char *file, struct err *err);
/* Where its machines note what they touch first (vm/snapshot/working_set.h); empty at first. -1: none can be had. */
int snapshot_open_working_set(const struct host *h, const char *id);

/* All that are whole, oldest first; about each other a line is logged, and *ret_damaged (NULL: of no interest) counts
 * them. */
int snapshots_list(const struct host *h, struct snapshot **ret_list, size_t *ret_count,
                   size_t *ret_damaged, struct err *err);
void snapshots_free_list(struct snapshot *list, size_t count);
/* By name, id, or a prefix that only one has. */
int snapshot_find(const struct host *h, const char *text, struct snapshot *ret_s, struct err *err);
int snapshot_read(const struct host *h, const char *id, struct snapshot *ret_s, struct err *err);
/* Those that are being made, as they claim to become; the lock is held. */
int snapshots_claimed(const struct host *h, struct snapshot **ret_list, size_t *ret_count,
                      struct err *err);
/* May a new one be called so? The lock is held. */
int snapshot_check_name(const struct host *h, const char *name, struct err *err);

/* --- making one --- */

struct snapshot_draft {
    int dir;   /* its folder */
    int claim; /* as long as it is open, nobody takes the folder for a leftover */
};
#define SNAPSHOT_DRAFT_INIT ((struct snapshot_draft){.dir = -1, .claim = -1})

/* A folder for a new one, not yet visible, while the lock is held; s->id is chosen. Until the end the name, the parent and
 * the layers that s has now are kept for it, without the lock. -EBUSY: one of this id is being made. */
int snapshot_begin(const struct host *h, struct snapshot *s, struct snapshot_draft *ret_draft,
                   struct err *err);
/* Writes the manifest, syncs every file, takes the lock itself, and makes it visible. What failed is to be aborted. */
int snapshot_commit(struct host *h, const struct snapshot *s, struct snapshot_draft *d,
                    struct err *err);
/* The same in the place of the snapshot `old`, whose id it keeps. */
int snapshot_replace(struct host *h, const char *old, const struct snapshot *s,
                     struct snapshot_draft *d, struct err *err);
/* Removes what was begun, and layers that nobody names; takes the lock itself. After a commit: nothing. */
void snapshot_abort(struct host *h, const struct snapshot *s, struct snapshot_draft *d);
/* Removes what was begun when a signal is about to end the program, in another thread than the one that makes it: keeps
 * the lock, so that nobody gives it its name any more, and the draft. Before a begin and after a commit: nothing. */
void snapshot_undo(struct host *h, const struct snapshot *s, const struct snapshot_draft *d);
void snapshot_draft_close(struct snapshot_draft *d); /* SNAPSHOT_DRAFT_INIT is fine */

/* --- changing others, with the lock held --- */

/* -EBUSY: others stand on it or are busy with it, *err names them. */
int snapshot_remove(struct host *h, const struct snapshot *s, struct err *err);

/* A new, empty overlay on `below` (its path NULL: on nothing) in <root>/layers/; *ret_path is the caller's to free. */
int layer_new(const struct host *h, const struct snapshot_layer *below, u64 size, char **ret_path,
              struct err *err);
/* Opens it as block_push() wants it, with its lock. */
int layer_open(const char *path, int *ret_fd, struct err *err);
/* The guest of this record runs on another host, on disks that it left here, and the record is about to go; or it is back. */
void layers_lend(const struct host *h, const struct record *r, bool lent);
/* Removes layers that nobody names. */
void layers_sweep(struct host *h);

/* For tests: dies here if $TRAPEZE_DIE_AT is this step, stops as by SIGSTOP if $TRAPEZE_STAND_AT is. */
void snapshot_step(const char *step);

#endif
