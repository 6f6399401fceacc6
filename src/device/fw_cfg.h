/*
 * fw_cfg: named items that the machine hands to firmware, through ports or DMA. The QEMU project's specification
 * "QEMU Firmware Configuration (fw_cfg) Device", so that SeaBIOS and OVMF find what they look for.
 *
 * Threads: items are added before vCPUs run; ports are touched by vCPU threads. fw_cfg.lock protects the state.
 */
#ifndef DEVICE_FW_CFG_H
#define DEVICE_FW_CFG_H

#include "mem/aspace.h"
#include "mem/gmem.h"

#define FW_CFG_ITEMS 48
#define FW_CFG_PORTS 12 /* 0 selector (2), 1 data, 4 DMA address (8) */

enum fw_cfg_key {
    FW_CFG_SIGNATURE = 0x00,
    FW_CFG_ID = 0x01,
    FW_CFG_RAM_SIZE = 0x03,
    FW_CFG_CPUS = 0x05,
    FW_CFG_MAX_CPUS = 0x0f,
    FW_CFG_FILE_DIR = 0x19,
    FW_CFG_FILE_FIRST = 0x20,
};

struct fw_cfg_item {
    u16 key;
    u32 len;
    u8 *data;      /* owned */
    char name[56]; /* of a file, else empty */
};

struct fw_cfg_state {
    u16 selected;
    u32 offset; /* of the next byte in the selected item */
    u64 dma_addr;
};

struct fw_cfg {
    pthread_mutex_t lock;
    struct fw_cfg_state s;
    struct gmem *ram;
    struct fw_cfg_item item[FW_CFG_ITEMS];
    unsigned nitems;
    struct io_region io;
};

void fw_cfg_init(struct fw_cfg *f, u16 base, struct gmem *ram);
void fw_cfg_fini(struct fw_cfg *f);
void fw_cfg_reset(struct fw_cfg *f);
int fw_cfg_map(struct fw_cfg *f, struct aspace *pio, struct err *err);
/* Copies the bytes. -ENOSPC when there are too many items, -EEXIST when the key is taken, -ENOMEM. */
int fw_cfg_add(struct fw_cfg *f, u16 key, const void *data, u32 len, struct err *err);
int fw_cfg_add_file(struct fw_cfg *f, const char *name, const void *data, u32 len, struct err *err);

#endif
