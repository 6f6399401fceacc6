/* A virtio driver for tests: finds a device by its capabilities, sets it up, fills its rings. It
 * can also lie. */
#ifndef DEVICE_DRIVER_H
#define DEVICE_DRIVER_H

#include "bench.h"

#define DRIVER_MSI_ADDR 0xfee00000ull
#define DRIVER_MSI_DATA 0x100 /* + queue; configuration changes: + 0xff */
#define DRIVER_MSI_CONFIG (DRIVER_MSI_DATA + 0xff)

/* Registers of the common configuration (virtio 1.2, 4.1.4.3). */
enum {
    REG_DFSELECT = 0,
    REG_DF = 4,
    REG_GFSELECT = 8,
    REG_GF = 12,
    REG_CONFIG_VECTOR = 16,
    REG_NUM_QUEUES = 18,
    REG_STATUS = 20,
    REG_GENERATION = 21,
    REG_QSELECT = 22,
    REG_QSIZE = 24,
    REG_QVECTOR = 26,
    REG_QENABLE = 28,
    REG_QNOTIFY = 30,
    REG_QDESC = 32,
    REG_QDRIVER = 40,
    REG_QDEVICE = 48
};

enum { SEG_NEXT = 1, SEG_WRITE = 2, SEG_INDIRECT = 4 };

struct seg {
    u64 gpa;
    u32 len;
    u16 flags, next;
};

struct drv_queue {
    u16 size, avail_idx, used_idx;
    u64 desc, avail, used;
    unsigned next_desc; /* round robin */
};

struct drv {
    struct bench *b;
    unsigned slot;
    u64 bar, common, isr, notify, config, msix;
    u32 notify_stride;
    u64 features;
    unsigned nqueues;
    struct drv_queue q[VIRTIO_QUEUES];
};

/* Finds the device in a slot. */
void drv_find(struct drv *d, struct bench *b, unsigned slot);
/* The whole of 3.1.1, with all offered features but `without`. */
void drv_start(struct drv *d, u64 without);
/* Its steps. */
void drv_features(struct drv *d, u64 features);
void drv_queue_setup(struct drv *d, unsigned q, u16 size);
void drv_reset(struct drv *d);

u64 drv_reg(struct drv *d, unsigned reg, unsigned size);
void drv_set_reg(struct drv *d, unsigned reg, unsigned size, u64 value);
u8 drv_status(struct drv *d);

/* Writes descriptor `i` of a table at gpa. */
void drv_desc(struct drv *d, u64 table, unsigned i, struct seg s);
/* Makes head available; does not notify. */
void drv_offer(struct drv *d, unsigned q, u16 head);
/* Chains n segments (flags: SEG_WRITE or 0) into free descriptors and makes them available; returns
 * the head. */
u16 drv_add(struct drv *d, unsigned q, const struct seg *s, unsigned n);
void drv_kick(struct drv *d, unsigned q);
/* Takes one used element; false when there is none. */
bool drv_used(struct drv *d, unsigned q, u32 *ret_id, u32 *ret_len);

void drv_put(struct drv *d, u64 gpa, const void *bytes, size_t len);
void drv_get(struct drv *d, u64 gpa, void *bytes, size_t len);

#define assert_needs_reset(d) assert_true(drv_status(d) & VIRTIO_NEEDS_RESET)
#define assert_healthy(d) assert_int_equal(drv_status(d), 15)

#endif
