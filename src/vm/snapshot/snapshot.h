/*
 * Snapshots of a running machine, and machines from snapshots. The VMM's side: files are opened by whoever asks
 * (host/snapshot.h); cmd/snapshot*.c put both together.
 *
 * Verbs of the control socket (main loop):
 *   snapshot-plan  -> {"memory": bytes, "base": "id or empty", "kernel": bool, "disks": [{"size", "readonly",
 *                     "layers": [{"path", "format"}]}]}
 *   snapshot       {"snapshot": id, "incremental": bool, "kernel": bool, "overlays": [{"disk": n, "path"}]}, descriptors: memory,
 *                  map, state, [kernel], overlays -> {"pause_ns", "pages", "rounds"}; events "progress" {"pages", "round"}
 */
#ifndef VM_SNAPSHOT_H
#define VM_SNAPSHOT_H

#include "vm/control.h"
#include "vm/snapshot/chain.h"
#include "vm/state.h"

struct vm_snapshots;

/* Makes ready for taking snapshots: a thread, before the sandbox. */
int vm_snapshots_new(struct vm *vm, struct vm_snapshots **ret_s, struct err *err);
void vm_snapshots_free(struct vm_snapshots *s); /* before the machine's parts go; NULL is fine */

/* Is one being taken? Main loop; NULL is fine. */
bool vm_snapshots_busy(const struct vm_snapshots *s);

void control_do_snapshot(struct control_call *call);
void control_do_snapshot_plan(struct control_call *call);

/* What a machine from a snapshot is made of. */
struct vm_restore {
    struct snapchain *memory;         /* ready; taken, on failure too */
    const struct state_source *state; /* behind its configuration */
    int kernel;                       /* file of board_save_kernel(); -1: none */
    int working_set;                  /* the list's file, see working_set.h; taken; -1: none */
    const char *id; /* the snapshot's: what a later incremental one may stand on */
    enum vm_clock clock;
};

/* vm is fresh from vm_new_from(). It can be resumed then; its memory comes when it is touched. */
int vm_restore(struct vm *vm, const struct vm_restore *from, struct err *err);

#endif
