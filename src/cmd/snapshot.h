/* The verbs under `trapeze snapshot`: a file for one or two of them each, one sorted table (cmd/snapshot.c). */
#ifndef CMD_SNAPSHOT_H
#define CMD_SNAPSHOT_H

#include "cmd/ending.h"
#include "cmd/status.h"
#include "cmd/subverb.h"
#include "host/snapshot.h"
#include "vm/snapshot/snapshot.h"

/* The first options of all of them; their own follow. */
enum { SNAP_HELP, SNAP_ROOT, SNAP_OWN };
/* clang-format off */
#define SNAP_OPTIONS                               \
    {"help", 'h', NULL, "show this help"},         \
    {"root", 0, "DIR", "where records of this host's guests live (or $TRAPEZE_ROOT)"}
/* clang-format on */

extern const struct subverb snap_clone_verb, snap_create_verb, snap_diff_verb, snap_export_verb,
    snap_flatten_verb, snap_import_verb, snap_ls_verb, snap_restore_verb, snap_rm_verb,
    snap_show_verb;

/* What a signal that ends the program takes away: a snapshot in the making. */
struct snap_making {
    struct host *h;
    const struct snapshot *s;
    const struct snapshot_draft *draft;
    struct ending ending;
};

/* From now until stop. The rest outlives it; the draft need not have been begun. On failure there is nothing to be stopped. */
int snap_making_start(struct snap_making *m, struct host *h, const struct snapshot *s,
                      const struct snapshot_draft *draft, struct err *err);
void snap_making_stop(struct snap_making *m); /* zeroed is fine */

/* "12.5 MiB", for people. */
const char *snap_size(u64 bytes, char buf[32]);
/* Bytes that the snapshot's files take on the disk, beyond what it shares with its parent. */
u64 snap_disk_bytes(const struct host *h, const struct snapshot *s);
/* Its memory with that of all it stands on, ready. The caller's to snapchain_free(); NULL: *err. */
struct snapchain *snap_open_memory(const struct host *h, const struct snapshot *s, struct err *err);
/* The whole of its state file, and the machine's description from its beginning: what follows is the state. */
int snap_open_state(const struct host *h, const struct snapshot *s, struct state_buf *ret_buf,
                    struct vm_config *ret_config, struct vm_identity *ret_id, struct err *err);
/* Writes the memory of a chain as one full snapshot into the files `memory` and `map` in dir. */
int snap_write_memory(struct snapchain *c, u64 ram_bytes, bool compress, int dir, u64 *ret_pages,
                      struct err *err);
/* Copies a file of the folder `from` to `to`, as a second name if that can be; none is none. */
int snap_copy_file(int from, int to, const char *file, struct err *err);

#endif
