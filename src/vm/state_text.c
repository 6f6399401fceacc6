/* A saved state as text, see state_text.h. */
#include "vm/state_text.h"

#include "device/pc_state.h"
#include "device/virtio.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"
#include "vm/state.h"
#include "x86/cpu_state.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define SECTION_MAX (1 * MiB)
#define OBJECT_ALIGN 64

static const struct pc_state *const pc_states[] = {
    &pic_pc_state,  &pit_pc_state,    &ioapic_pc_state,  &lapic_pc_state, &rtc_pc_state,
    &hpet_pc_state, &serial_pc_state, &acpi_pm_pc_state, &i8042_pc_state, &fw_cfg_pc_state,
};
static const struct virtio_type *const virtio_types[] = {&virtio_blk_type, &virtio_console_type,
                                                         &virtio_net_type, &virtio_rng_type};
static const struct {
    const char *name;
    const struct state_table *table;
} others[] = {
    {"cpu", &x86_cpu_table},
    {"clock", &vm_clock_table},
    {"pci", &pci_func_table},
    {"virtio", &virtio_table},
};

static const struct state_table *find_table(const char *name)
{
    for (size_t i = 0; i < ARRAY_LEN(others); i++)
        if (!strcmp(others[i].name, name))
            return others[i].table;
    for (size_t i = 0; i < ARRAY_LEN(pc_states); i++)
        if (!strcmp(pc_states[i]->name, name))
            return pc_states[i]->table;
    for (size_t i = 0; i < ARRAY_LEN(virtio_types); i++)
        if (!strcmp(virtio_types[i]->name, name))
            return virtio_types[i]->state;
    return NULL;
}

/* One field, printed by a table that has no other. */
static int print_field(const struct state_table *t, unsigned i, const void *object, char **ret_text)
{
    struct state_table one = {
        .version = t->version, .size = t->size, .fields = &t->fields[i], .nfields = 1};
    size_t len = 0;
    FILE *out = open_memstream(ret_text, &len);

    if (!out)
        return -ENOMEM;
    state_table_print(&one, object, out);
    return fclose(out) ? -ENOMEM : 0;
}

int state_text_object(const struct state_table *t, const void *object, const char *section,
                      state_text_fn *fn, void *opaque, struct err *err)
{
    for (unsigned i = 0; i < t->nfields; i++) {
        auto_free char *text = NULL;

        if (print_field(t, i, object, &text))
            return err_set(err, ENOMEM, "no memory");
        char *value = text + 2 + strlen(t->fields[i].name) + 1; /* behind "  NAME:" */
        value[strlen(value) - 1] = 0;
        value += strspn(value, " ");
        fn(opaque, section, t->fields[i].name, value);
    }
    return 0;
}

static int walk_section(const struct state_section *s, const u8 *bytes, state_text_fn *fn,
                        void *opaque, struct err *err)
{
    const struct state_table *t = find_table(s->name);
    char title[STATE_NAME_BYTES + 16];

    snprintf(title, sizeof(title), "%s %u", s->name, s->instance);
    if (!t || !s->version || s->version > t->version ||
        s->len != state_table_bytes(t, s->version)) {
        fn(opaque, title, "unknown", "a section that this release cannot read");
        return 0;
    }
    auto_free void *object = aligned_alloc(OBJECT_ALIGN, ALIGN_UP(MAX(t->size, 1u), OBJECT_ALIGN));
    if (!object)
        return err_set(err, ENOMEM, "no memory");
    memset(object, 0, t->size);
    if (state_table_load(t, s->version, bytes, object, err))
        return err_wrap(err, "%s", title);
    return state_text_object(t, object, title, fn, opaque, err);
}

int state_text_walk(const struct state_source *from, state_text_fn *fn, void *opaque,
                    struct err *err)
{
    struct state_section s;
    int rc = state_read_head(from, err);

    while (!rc && !(rc = state_read_section(from, &s, err))) {
        auto_free u8 *bytes = NULL;

        if (s.len > SECTION_MAX)
            return err_set(err, EBADMSG, "section '%s' is too long", s.name);
        bytes = malloc(s.len + 1);
        if (!bytes)
            return err_set(err, ENOMEM, "no memory");
        rc = state_read_bytes(from, &s, bytes, err);
        if (rc || state_is_end(&s))
            return rc;
        rc = walk_section(&s, bytes, fn, opaque, err);
    }
    return rc;
}
