/*
 * The bench machine: RAM, address spaces, a recorder of interrupts, a stepped clock and a PCI bus,
 * in one process and without a processor. Tests play the guest.
 */
#ifndef DEVICE_BENCH_H
#define DEVICE_BENCH_H

#include "device/virtio.h"
#include "unit.h"

#define BENCH_RAM (64 * MiB)
#define BENCH_ECAM 0xe0000000ull
#define BENCH_WINDOW 0xc0000000ull
#define BENCH_WINDOW_LEN 0x20000000ull
#define BENCH_WINDOW64 0x100000000ull
#define BENCH_WINDOW64_LEN (16 * GiB)
#define BENCH_MSI_MAX 4096

struct bench {
    struct gmem ram;
    u64 ram_next; /* bench_alloc() */
    struct aspace mmio, pio;
    struct timerq timers;
    struct pci_host *pci;
    struct virtio_env env;
    bool intx[PCI_INTX_LINES];

    pthread_mutex_t lock; /* protects msi[] */
    pthread_cond_t arrived;
    struct {
        u64 addr;
        u32 data;
    } msi[BENCH_MSI_MAX];
    unsigned nmsi;
};

void bench_init(struct bench *b);
void bench_fini(struct bench *b);
/* Guest RAM that nobody else uses, zeroed. */
u64 bench_alloc(struct bench *b, u64 len, u64 align);
/* Waits until `data` has been sent by MSI at least `count` times; fails the test after some
 * seconds. */
void bench_wait_msi(struct bench *b, u32 data, unsigned count);
unsigned bench_count_msi(struct bench *b, u32 data);

u64 bench_read(struct bench *b, u64 addr, unsigned size);
void bench_write(struct bench *b, u64 addr, unsigned size, u64 value);
/* Configuration space through ECAM. */
u32 bench_config_read(struct bench *b, unsigned slot, unsigned offset, unsigned size);
void bench_config_write(struct bench *b, unsigned slot, unsigned offset, unsigned size, u32 value);

#endif
