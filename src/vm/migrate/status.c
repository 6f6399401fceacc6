/*
 * What the rest of the VMM asks about a machine's migration: how it stands, and what may be done to the machine meanwhile.
 * Main loop.
 */
#include "vm/migrate/parts.h"

#include <errno.h>

bool vm_migrate_may_resume(const struct vm *vm)
{
    const struct vm_migration *m = vm->migration;
    struct migrate_progress p;

    if (!m || m->vm->ended)
        return true;
    if (m->destination && !migrate_destination_runs(m->destination))
        return false;
    if (!m->source)
        return true;
    migrate_source_progress(m->source, &p);
    return p.phase < MIGRATE_HANDOVER;
}

int vm_migrate_stays(const struct vm *vm, struct err *err)
{
    const struct vm_migration *m = vm->migration;

    if (!m)
        return 0;
    if (m->source)
        return err_set(err, EBUSY,
                       "the machine is being migrated: wait for its end or 'trapeze migrate "
                       "--cancel' it");
    if (m->destination && !migrate_destination_runs(m->destination))
        return err_set(err, EBUSY, "the machine is arriving from another host");
    if (m->destination && lazy_missing(&vm->ram))
        return err_set(err, EBUSY,
                       "a part of the machine's memory is still to come from the host it was on "
                       "before; wait for that migration to complete");
    return 0;
}

static int source_may_end(struct migrate_source *s, struct err *err)
{
    struct migrate_progress p;

    migrate_source_progress(s, &p);
    switch (p.owner) {
    case MIGRATE_OURS:
    case MIGRATE_HELD:
    case MIGRATE_GONE:
    case MIGRATE_OWNERS:
        return 0;
    case MIGRATE_GIVEN:
        return err_set(err, EBUSY, "it is being handed over to another host just now");
    case MIGRATE_SERVING:
        return err_set(
            err, EBUSY,
            "it runs on another host, which still needs %llu MiB of its memory from here: "
            "if this ended now, the guest would be lost. 'trapeze migrate --again' goes on "
            "after a broken line; --force ends it nevertheless",
            (unsigned long long)(p.left_pages * MIGRATE_PAGE_BYTES / MiB + 1));
    case MIGRATE_UNDECIDED:
        return err_set(
            err, EBUSY,
            "nobody could say whether it runs on the host that it was to move to, and if it "
            "does not, this is the only one: 'trapeze migrate --again' asks once more. "
            "Look there, and if it runs there, --force ends this one");
    }
    return 0;
}

int vm_migrate_may_end(const struct vm *vm, struct err *err)
{
    const struct vm_migration *m = vm->migration;

    if (!m)
        return 0;
    if (m->source)
        return source_may_end(m->source, err);
    if (m->destination && migrate_destination_runs(m->destination) && lazy_missing(&vm->ram))
        return err_set(
            err, EBUSY,
            "it has just moved here, and %llu MiB of its memory are still to come; no other "
            "host can run it any more. --force ends it nevertheless",
            (unsigned long long)(lazy_missing(&vm->ram) * MIGRATE_PAGE_BYTES / MiB + 1));
    return 0;
}

const char *vm_migrate_state(const struct vm *vm)
{
    const struct vm_migration *m = vm->migration;

    if (!m)
        return NULL;
    if (m->source) {
        enum migrate_owner owner = migrate_source_owner(m->source);

        return m->call && owner != MIGRATE_SERVING ? "migrating" : migrate_owner_name(owner);
    }
    if (m->destination && !migrate_destination_runs(m->destination))
        return "arriving";
    return lazy_missing(&vm->ram) ? "waiting for memory" : NULL;
}
