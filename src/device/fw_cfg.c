/*
 * fw_cfg. Numbers in the directory and in DMA descriptors are big-endian, items are whatever their reader expects.
 *
 * Invariants: reads past the end of an item give zeros; items never change while the guest runs; DMA touches nothing
 * but RAM, so it cannot come back into a device.
 *
 * Threads: see fw_cfg.h.
 */
#include "device/fw_cfg.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define PORT_SELECT 0
#define PORT_DATA 1
#define PORT_DMA 4
#define ID_PORTS BIT(0)
#define ID_DMA BIT(1)
#define DMA_ERROR BIT(0)
#define DMA_READ BIT(1)
#define DMA_SKIP BIT(2)
#define DMA_SELECT BIT(3)
#define DMA_WRITE BIT(4)
#define DMA_SIGNATURE 0x51454d5520434647ull /* "QEMU CFG" */

struct dma {
    u32 control, len;
    u64 addr;
};

struct dir_entry {
    u32 len;
    u16 key, reserved;
    char name[56];
};

static const struct fw_cfg_item *find(const struct fw_cfg *f, u16 key)
{
    for (unsigned i = 0; i < f->nitems; i++) {
        if (f->item[i].key == key)
            return &f->item[i];
    }
    return NULL;
}

/* The directory of files is made when it is read, byte by byte: it is read once per boot. */
static u8 dir_byte(const struct fw_cfg *f, u32 offset)
{
    u32 count = 0, entry = (offset - 4) / sizeof(struct dir_entry),
        at = (offset - 4) % sizeof(struct dir_entry);
    struct dir_entry e = {0};

    for (unsigned i = 0; i < f->nitems; i++) {
        if (!f->item[i].name[0])
            continue;
        if (offset >= 4 && count == entry) {
            e.len = __builtin_bswap32(f->item[i].len);
            e.key = __builtin_bswap16(f->item[i].key);
            memcpy(e.name, f->item[i].name, sizeof(e.name));
        }
        count++;
    }
    if (offset >= 4)
        return ((const u8 *)&e)[at];
    return (u8)(count >> (24 - 8 * offset));
}

static u8 next_byte(struct fw_cfg *f)
{
    const struct fw_cfg_item *item = find(f, f->s.selected);
    u32 offset = f->s.offset;

    if (f->s.offset < UINT32_MAX)
        f->s.offset++;
    if (f->s.selected == FW_CFG_FILE_DIR)
        return dir_byte(f, offset);
    return item && offset < item->len ? item->data[offset] : 0;
}

static void select_item(struct fw_cfg *f, u16 key)
{
    f->s.selected = key;
    f->s.offset = 0;
}

/* Copies `len` bytes of the item to RAM, zeros after its end. */
static bool dma_read(struct fw_cfg *f, u64 addr, u32 len)
{
    const struct fw_cfg_item *item = find(f, f->s.selected);
    u8 *to = len ? gmem_ptr(f->ram, addr, len) : NULL;
    u32 n = 0;

    if (!len)
        return true;
    if (!to)
        return false;
    if (f->s.selected == FW_CFG_FILE_DIR) {
        for (n = 0; n < len && f->s.offset < 4 + FW_CFG_ITEMS * sizeof(struct dir_entry); n++)
            to[n] = next_byte(f);
    } else if (item && f->s.offset < item->len) {
        n = MIN(len, item->len - f->s.offset);
        memcpy(to, item->data + f->s.offset, n);
    }
    memset(to + n, 0, len - n);
    if (f->s.selected != FW_CFG_FILE_DIR && ADD_OVERFLOWS(f->s.offset, len, &f->s.offset))
        f->s.offset = UINT32_MAX;
    gmem_wrote(f->ram, addr, len);
    return true;
}

static void run_dma(struct fw_cfg *f)
{
    struct dma d;
    bool ok = true;
    u32 result;

    if (gmem_read(f->ram, f->s.dma_addr, &d, sizeof(d)))
        return; /* not even the answer could be written */
    d.control = __builtin_bswap32(d.control);
    d.len = __builtin_bswap32(d.len);
    d.addr = __builtin_bswap64(d.addr);
    if (d.control & DMA_SELECT)
        select_item(f, (u16)(d.control >> 16));
    if (d.control & DMA_READ)
        ok = dma_read(f, d.addr, d.len);
    else if (d.control & DMA_WRITE)
        ok = false; /* nothing here can be written */
    else if ((d.control & DMA_SKIP) && ADD_OVERFLOWS(f->s.offset, d.len, &f->s.offset))
        f->s.offset = UINT32_MAX;
    result = __builtin_bswap32(ok ? 0 : (u32)DMA_ERROR);
    gmem_write(f->ram, f->s.dma_addr, &result, sizeof(result));
}

static u64 fw_cfg_read(void *opaque, u64 offset, unsigned size)
{
    struct fw_cfg *f = opaque;
    u64 value = 0;

    if (offset >= PORT_DMA) {
        for (unsigned i = 0; i < size; i++)
            value |= (DMA_SIGNATURE >> (56 - 8 * (offset - PORT_DMA + i)) & 0xff) << 8 * i;
        return value;
    }
    if (offset != PORT_DATA || size != 1)
        return 0;
    pthread_mutex_lock(&f->lock);
    value = next_byte(f);
    pthread_mutex_unlock(&f->lock);
    return value;
}

static void fw_cfg_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct fw_cfg *f = opaque;

    pthread_mutex_lock(&f->lock);
    if (offset == PORT_SELECT && size == 2) {
        select_item(f, (u16)value);
    } else if (offset == PORT_DMA && size == 4) {
        f->s.dma_addr = (u64)__builtin_bswap32((u32)value) << 32;
    } else if (offset == PORT_DMA + 4 && size == 4) { /* the low half starts it */
        f->s.dma_addr |= __builtin_bswap32((u32)value);
        run_dma(f);
        f->s.dma_addr = 0;
    }
    pthread_mutex_unlock(&f->lock);
}

static const struct io_ops fw_cfg_ops = {.read = fw_cfg_read, .write = fw_cfg_write};

void fw_cfg_init(struct fw_cfg *f, u16 base, struct gmem *ram)
{
    static const u32 id = ID_PORTS | ID_DMA;

    memset(f, 0, sizeof(*f));
    pthread_mutex_init(&f->lock, NULL);
    f->ram = ram;
    f->io = (struct io_region){
        .name = "fw-cfg", .base = base, .len = FW_CFG_PORTS, .ops = &fw_cfg_ops, .opaque = f};
    fw_cfg_add(f, FW_CFG_SIGNATURE, "QEMU", 4, NULL);
    fw_cfg_add(f, FW_CFG_ID, &id, sizeof(id), NULL);
}

void fw_cfg_fini(struct fw_cfg *f)
{
    if (!f->ram)
        return;
    for (unsigned i = 0; i < f->nitems; i++)
        free(f->item[i].data);
    f->nitems = 0;
    pthread_mutex_destroy(&f->lock);
}

void fw_cfg_reset(struct fw_cfg *f)
{
    pthread_mutex_lock(&f->lock);
    f->s = (struct fw_cfg_state){0};
    pthread_mutex_unlock(&f->lock);
}

int fw_cfg_map(struct fw_cfg *f, struct aspace *pio, struct err *err)
{
    return aspace_map(pio, &f->io, err);
}

int fw_cfg_add(struct fw_cfg *f, u16 key, const void *data, u32 len, struct err *err)
{
    struct fw_cfg_item *item = &f->item[f->nitems];

    if (f->nitems == FW_CFG_ITEMS)
        return err_set(err, ENOSPC, "fw_cfg: more than %d items", FW_CFG_ITEMS);
    if (find(f, key) || key == FW_CFG_FILE_DIR)
        return err_set(err, EEXIST, "fw_cfg: item 0x%x is there already", key);
    *item = (struct fw_cfg_item){.key = key, .len = len, .data = malloc(len ? len : 1)};
    if (!item->data)
        return err_set(err, ENOMEM, "fw_cfg: no memory for item 0x%x", key);
    memcpy(item->data, data, len);
    f->nitems++;
    return 0;
}

int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, u32 len, struct err *err)
{
    struct fw_cfg_item *item = &f->item[f->nitems];
    u16 key = FW_CFG_FILE_FIRST;
    int rc;

    if (!name[0] || strlen(name) >= sizeof(item->name))
        return err_set(err, EINVAL, "fw_cfg: a name of a file has 1 to %zu characters",
                       sizeof(item->name) - 1);
    while (find(f, key))
        key++;
    rc = fw_cfg_add(f, key, data, len, err);
    if (!rc)
        strncpy(item->name, name, sizeof(item->name) - 1);
    return rc;
}
