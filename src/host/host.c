/* This host: opening it, and finding guests. One thread. */
#include "host/host.h"

#include "host/guest.h"
#include "vm/value.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int host_settle(struct host *h, struct err *err)
{
    struct record *list = NULL;
    size_t count = 0;
    int rc = records_list(h->records, &list, &count, err);

    for (size_t i = 0; i < count && !rc; i++) {
        bool gone;

        if (list[i].state == RECORD_RUNNING)
            rc = guest_settle(h, &list[i], &gone, err);
    }
    records_free_list(list, count);
    return rc;
}

int host_open(struct host *h, const char *root, struct err *err)
{
    auto_free char *path = NULL;

    *h = (struct host){0};
    int rc = place_init(&h->place, root, err);
    if (!rc && asprintf(&path, "%s/trapeze.db", h->place.root) < 0)
        rc = err_set(err, ENOMEM, "records: no memory");
    if (!rc)
        rc = records_open(path, &h->records, err);
    if (!rc)
        rc = host_settle(h, err);
    if (rc) {
        host_close(h);
        return rc;
    }
    guest_sweep_folders(h);
    return 0;
}

void host_close(struct host *h)
{
    records_close(h->records);
    place_fini(&h->place);
    *h = (struct host){0};
}

/* Lists who is meant, for an ambiguous beginning. */
static int ambiguous(const struct record *list, size_t count, const char *text, struct err *err)
{
    char names[256] = "";
    size_t len = strlen(text), used = 0;

    for (size_t i = 0; i < count; i++)
        if (!strncmp(list[i].name, text, len) || !strncmp(list[i].id, text, len))
            used += (size_t)snprintf(names + used, sizeof(names) - MIN(used, sizeof(names)),
                                     "%s%s (%s)", used ? ", " : "", list[i].name, list[i].id),
                used = MIN(used, sizeof(names) - 1);
    return err_set(err, ENOTUNIQ, "'%s' may be several guests: %s", text, names);
}

static int unknown(const struct record *list, size_t count, const char *text, struct err *err)
{
    const char **names = calloc(count + 1, sizeof(*names));
    const char *near = NULL;

    for (size_t i = 0; i < count && names; i++)
        names[i] = list[i].name;
    if (names)
        near = value_nearest(text, names);
    free(names);
    if (near)
        return err_set(err, ENOENT, "there is no guest '%s', did you mean '%s'?", text, near);
    return err_set(err, ENOENT, "there is no guest '%s'; 'trapeze ps -a' lists them", text);
}

/* The index of the one that is meant, or -errno. */
static int choose(const struct record *list, size_t count, const char *text, struct err *err)
{
    size_t len = strlen(text);
    int found = -1;
    unsigned several = 0;

    for (size_t i = 0; i < count; i++)
        if (!strcmp(list[i].name, text) || !strcmp(list[i].id, text))
            return (int)i;
    for (size_t i = 0; i < count && len; i++)
        if (!strncmp(list[i].name, text, len) || !strncmp(list[i].id, text, len)) {
            found = (int)i;
            several++;
        }
    if (several > 1)
        return ambiguous(list, count, text, err);
    return several ? found : unknown(list, count, text, err);
}

int host_find(struct host *h, const char *text, struct record *ret_record, struct err *err)
{
    struct record *list = NULL;
    size_t count = 0;
    int rc = records_list(h->records, &list, &count, err);

    if (rc)
        return rc;
    rc = choose(list, count, text, err);
    if (rc >= 0) {
        *ret_record = list[rc];
        list[rc].config = list[rc].reason = NULL;
        rc = 0;
    }
    records_free_list(list, count);
    return rc;
}
