/*
 * `trapeze snapshot VERB`: snapshots of guests, and guests made from them. Main thread.
 */
#include "cmd/snapshot.h"

static const struct subverb *const snap_verbs[] = {
    &snap_clone_verb,
    &snap_create_verb,
    &snap_diff_verb,
    &snap_export_verb,
    &snap_flatten_verb,
    &snap_import_verb,
    &snap_ls_verb,
    &snap_restore_verb,
    &snap_rm_verb,
    &snap_show_verb,
    NULL,
};

static const struct args_spec *options(void)
{
    return verb_help_only;
}

const struct verb verb_snapshot = {
    .name = "snapshot",
    .operands = "VERB [...]",
    .summary = "Take snapshots of guests, and make guests from them",
    .options = options,
    .subverbs = snap_verbs,
    .run = subverb_run,
};
