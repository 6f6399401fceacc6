/* The sizes of disks in HELLO, see sizes.h. Any thread; no state. */
#include "vm/migrate/sizes.h"

#include "vm/config.h"
#include "vm/migrate/wire.h"
#include <assert.h>
#include <errno.h>
#include <string.h>

#define SECTION "disks"
#define VERSION 1

int migrate_sizes_save(const u64 *bytes, unsigned n, const struct state_sink *to, struct err *err)
{
    u8 body[VM_DISKS * sizeof(u64)];
    int rc = state_write_head(to, err);

    assert(n <= VM_DISKS);
    for (unsigned i = 0; i < n; i++)
        migrate_put(body + i * sizeof(u64), bytes[i], sizeof(u64));
    rc = rc ? rc : state_write_section(to, SECTION, 0, VERSION, body, n * sizeof(u64), err);
    return rc ? rc : state_write_end(to, 1, err);
}

int migrate_sizes_load(const struct state_source *from, unsigned n, u64 *ret_bytes, struct err *err)
{
    u8 body[VM_DISKS * sizeof(u64)];
    struct state_section s;
    bool found = false;
    int rc = state_read_head(from, err);

    assert(n <= VM_DISKS);
    while (!rc && !(rc = state_read_section(from, &s, err)) && !state_is_end(&s)) {
        if (strcmp(s.name, SECTION) || s.version != VERSION) {
            rc = state_check_bytes(from, &s, err);
            continue;
        }
        if (found || s.instance || s.len != n * sizeof(u64))
            return err_set(err, EBADMSG, "section '" SECTION "' is not of a machine with %u disks",
                           n);
        rc = state_read_bytes(from, &s, body, err);
        found = true;
    }
    if (!rc)
        rc = state_check_bytes(from, &s, err);
    if (rc)
        return rc;
    if (!found)
        return err_set(err, ENOTSUP, "the sizes of disks are missing, or of a later release");
    for (unsigned i = 0; i < n; i++)
        ret_bytes[i] = migrate_get(body + i * sizeof(u64), sizeof(u64));
    return 0;
}
