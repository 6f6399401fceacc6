/*
 * The set of saved state. Loading goes through these states:
 *
 *   stage:  each section is read into a scratch copy of its object (unknown, doubled and missing
 * ones are errors) check:  each scratch copy is judged by its component commit: scratch copies
 * become the objects, then the post_load hooks run in the order of registration
 *
 * Invariants: 1. no object changes before every check has passed; 2. scratch is NULL outside of
 * state_set_load();
 * 3. memory is allocated by what is registered, never by what a stream says.
 */
#include "state/set.h"

#include "state/trace.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define SCRATCH_ALIGN 64 /* of the most aligned object: a processor's vector state */

static struct state_entry *find(struct state_set *s, const char *name, u32 instance)
{
    struct state_entry *e = s->first;

    while (e && (e->instance != instance || strcmp(e->name, name)))
        e = e->next;
    return e;
}

int state_set_add(struct state_set *s, struct state_entry *e, struct err *err)
{
    struct state_entry **link = &s->first;

    if (find(s, e->name, e->instance))
        return err_set(err, EEXIST, "state of %s %u is registered already", e->name, e->instance);
    if (state_table_check(e->table, err))
        return err_wrap(err, "%s", e->name);
    while (*link)
        link = &(*link)->next;
    e->next = NULL;
    e->scratch = NULL;
    *link = e;
    return 0;
}

void state_set_remove(struct state_set *s, struct state_entry *e)
{
    struct state_entry **link = &s->first;

    while (*link && *link != e)
        link = &(*link)->next;
    if (*link)
        *link = e->next;
    e->next = NULL;
}

static int save_entry(struct state_entry *e, const struct state_sink *to, struct err *err)
{
    const struct state_table *t = e->table;
    u64 len = state_table_bytes(t, t->version);
    auto_free u8 *buf = malloc(MAX(len, 1));

    if (!buf)
        return err_sys(err, ENOMEM, "%s", e->name);
    if (e->pre_save)
        e->pre_save(e->opaque);
    state_table_save(t, e->object, buf);
    trace_state_save(e->name, e->instance, len);
    return state_write_section(to, e->name, e->instance, t->version, buf, len, err);
}

int state_set_save(struct state_set *s, const struct state_sink *to, struct err *err)
{
    int rc = state_write_head(to, err);
    u32 sections = 0;

    for (struct state_entry *e = s->first; !rc && e; e = e->next, sections++)
        rc = save_entry(e, to, err);
    return rc ? rc : state_write_end(to, sections, err);
}

/* Reads the bytes of a section that is e's into e->scratch. */
static int stage_entry(struct state_entry *e, const struct state_section *section,
                       const struct state_source *from, struct err *err)
{
    const struct state_table *t = e->table;
    auto_free u8 *buf = NULL;
    int rc;

    if (e->scratch)
        return err_set(err, EBADMSG, "there twice");
    if (section->version > t->version)
        return err_set(err, ENOTSUP,
                       "saved as version %u by a newer program; this one reads up to %u",
                       section->version, t->version);
    if (!section->version || section->len != state_table_bytes(t, section->version))
        return err_set(err, EBADMSG, "%" PRIu64 " bytes in version %u cannot be", section->len,
                       section->version);
    buf = malloc(MAX(section->len, 1));
    e->scratch = aligned_alloc(SCRATCH_ALIGN, ALIGN_UP(MAX(t->size, 1), SCRATCH_ALIGN));
    if (!buf || !e->scratch)
        return err_sys(err, ENOMEM, "loading");
    rc = state_read_bytes(from, section, buf, err);
    if (rc)
        return rc;
    trace_state_load(e->name, e->instance, section->version);
    /* What an older version does not have stays as it is. */
    memcpy(e->scratch, e->object, t->size);
    return state_table_load(t, section->version, buf, e->scratch, err);
}

static int read_end(const struct state_section *section, u32 sections,
                    const struct state_source *from, struct err *err)
{
    u8 nothing;

    if (section->version || section->len || section->instance != sections)
        return err_set(err, EBADMSG, "saved state ends after %u sections, not after %u", sections,
                       section->instance);
    return state_read_bytes(from, section, &nothing, err);
}

static int stage(struct state_set *s, const struct state_source *from, struct err *err)
{
    struct state_section section;
    struct state_entry *e;
    int rc = state_read_head(from, err);

    for (u32 sections = 0; !rc; sections++) {
        rc = state_read_section(from, &section, err);
        if (rc)
            return rc;
        if (state_is_end(&section))
            return read_end(&section, sections, from, err);
        e = find(s, section.name, section.instance);
        if (!e)
            return err_set(err, ENODEV, "saved state has %s %u, which this machine has not",
                           section.name, section.instance);
        if (stage_entry(e, &section, from, err))
            rc = err_wrap(err, "state of %s %u", e->name, e->instance);
    }
    return rc;
}

static int check_all(struct state_set *s, struct err *err)
{
    for (struct state_entry *e = s->first; e; e = e->next) {
        if (!e->scratch)
            return err_set(err, ENODATA, "saved state lacks %s %u", e->name, e->instance);
        if (e->check && e->check(e->opaque, e->scratch, err))
            return err_wrap(err, "state of %s %u", e->name, e->instance);
    }
    return 0;
}

static int commit(struct state_set *s, struct err *err)
{
    for (struct state_entry *e = s->first; e; e = e->next)
        memcpy(e->object, e->scratch, e->table->size);
    for (struct state_entry *e = s->first; e; e = e->next) {
        if (e->post_load && e->post_load(e->opaque, err))
            return err_wrap(err, "state of %s %u", e->name, e->instance);
    }
    return 0;
}

int state_set_load(struct state_set *s, const struct state_source *from, struct err *err)
{
    /* The reason decides the result: hooks promise to fill it, so we need one even if the caller
     * does not. */
    struct err own = ERR_INIT, *reason = err ? err : &own;
    int rc = stage(s, from, reason);

    if (!rc)
        rc = check_all(s, reason);
    if (!rc)
        rc = commit(s, reason);
    for (struct state_entry *e = s->first; e; e = e->next) {
        free(e->scratch);
        e->scratch = NULL;
    }
    return rc;
}

void state_set_print(struct state_set *s, FILE *out)
{
    for (struct state_entry *e = s->first; e; e = e->next) {
        if (e->pre_save)
            e->pre_save(e->opaque);
        fprintf(out, "%s %u\n", e->name, e->instance);
        state_table_print(e->table, e->object, out);
    }
}
