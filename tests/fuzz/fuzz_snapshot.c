/*
 * Any bytes as the files of a snapshot: manifest, map of the memory, description of the machine. The first byte says
 * which. They are read or refused; what was read can be used without a second look.
 */
#include "fuzz.h"

#include "host/snapshot_manifest.h"
#include "vm/identity.h"
#include "vm/snapshot/map.h"

#include <stdlib.h>
#include <string.h>

#define RAM (4 * MiB)
#define FILE_BYTES (2 * MiB)

static void read_manifest(const u8 *data, size_t size)
{
    struct snapshot s = {0};
    struct err err = ERR_INIT;

    if (!manifest_read((const char *)data, size, &s, &err)) {
        json_decref(manifest_write(&s));
        snapshot_fini(&s);
    }
}

/* Every page that a good map has lies in the file. */
static void read_map(const u8 *data, size_t size)
{
    struct state_buf in = {.data = (u8 *)data, .len = size};
    struct state_source from = state_buf_source(&in);
    struct snapmap m = {0};
    struct err err = ERR_INIT;

    if (snapmap_load(&m, &from, RAM, FILE_BYTES, &err))
        return;
    for (u64 page = 0; page < m.pages; page++) {
        if (!snapmap_has(m.present, page))
            continue;
        const struct snapmap_chunk *c = m.compressed ? &m.chunk[page / SNAPMAP_CHUNK] : NULL;
        if (c ? !range_fits(c->at, c->len, FILE_BYTES)
              : !range_fits(page * SNAPMAP_PAGE, SNAPMAP_PAGE, FILE_BYTES))
            abort();
    }
    snapmap_fini(&m);
}

static void read_config(const u8 *data, size_t size)
{
    struct state_buf in = {.data = (u8 *)data, .len = size};
    struct state_source from = state_buf_source(&in);
    auto_free struct vm_identity *id = calloc(1, sizeof(*id));
    struct vm_config c;
    struct err err = ERR_INIT;

    if (id && !vm_config_load(&from, &c, id, &err)) {
        vm_identity_fits(id, &err);
        vm_config_fini(&c);
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    static void (*const readers[])(const u8 *data, size_t size) = {read_manifest, read_map,
                                                                   read_config};

    if (size)
        readers[data[0] % ARRAY_LEN(readers)](data + 1, size - 1);
    return 0;
}
