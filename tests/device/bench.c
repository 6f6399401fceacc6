/* The bench machine. */
#include "bench.h"
#include "base/log.h"
#include <time.h>

static void record_msi(void *opaque, u64 addr, u32 data)
{
    struct bench *b = opaque;

    pthread_mutex_lock(&b->lock);
    if (b->nmsi < BENCH_MSI_MAX) {
        b->msi[b->nmsi].addr = addr;
        b->msi[b->nmsi].data = data;
        b->nmsi++;
    }
    pthread_cond_broadcast(&b->arrived);
    pthread_mutex_unlock(&b->lock);
}

static void record_intx(void *opaque, unsigned pin, bool level)
{
    struct bench *b = opaque;

    b->intx[pin] = level;
}

void bench_init(struct bench *b)
{
    struct pci_host_config c;

    memset(b, 0, sizeof(*b));
    log_set_level(LOG_ERROR); /* drivers are wrong on purpose here */
    assert_int_equal(gmem_init(&b->ram, BENCH_RAM, NULL), 0);
    b->ram_next = 64 * KiB;
    aspace_init(&b->mmio, 1ull << 48);
    aspace_init(&b->pio, 65536);
    timerq_init(&b->timers);
    b->timers.stepped = true;
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->arrived, NULL);
    c = (struct pci_host_config){.mmio = &b->mmio,
                                 .pio = &b->pio,
                                 .msi = {record_msi, b},
                                 .intx_gsi = 16,
                                 .ecam_base = BENCH_ECAM,
                                 .mmio32_base = BENCH_WINDOW,
                                 .mmio32_len = BENCH_WINDOW_LEN,
                                 .mmio64_base = BENCH_WINDOW64,
                                 .mmio64_len = BENCH_WINDOW64_LEN};
    for (unsigned i = 0; i < PCI_INTX_LINES; i++)
        c.intx[i] = (struct irq){record_intx, b, i};
    assert_int_equal(pci_host_new(&c, &b->pci, NULL), 0);
    b->env = (struct virtio_env){.pci = b->pci, .ram = &b->ram, .timers = &b->timers, .cpus = 1};
}

void bench_fini(struct bench *b)
{
    pci_host_free(b->pci);
    timerq_fini(&b->timers);
    aspace_fini(&b->mmio);
    aspace_fini(&b->pio);
    gmem_fini(&b->ram);
    pthread_cond_destroy(&b->arrived);
    pthread_mutex_destroy(&b->lock);
}

u64 bench_alloc(struct bench *b, u64 len, u64 align)
{
    u64 gpa = ALIGN_UP(b->ram_next, align);

    b->ram_next = gpa + len;
    assert_true(b->ram_next <= BENCH_RAM);
    memset(gmem_ptr(&b->ram, gpa, len), 0, len);
    return gpa;
}

static unsigned count_locked(struct bench *b, u32 data)
{
    unsigned n = 0;

    for (unsigned i = 0; i < b->nmsi; i++)
        n += b->msi[i].data == data;
    return n;
}

unsigned bench_count_msi(struct bench *b, u32 data)
{
    unsigned n;

    pthread_mutex_lock(&b->lock);
    n = count_locked(b, data);
    pthread_mutex_unlock(&b->lock);
    return n;
}

void bench_wait_msi(struct bench *b, u32 data, unsigned count)
{
    struct timespec until;
    int rc = 0;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&b->lock);
    while (count_locked(b, data) < count && !rc)
        rc = pthread_cond_timedwait(&b->arrived, &b->lock, &until);
    pthread_mutex_unlock(&b->lock);
    assert_int_equal(rc, 0);
}

u64 bench_read(struct bench *b, u64 addr, unsigned size)
{
    return aspace_read(&b->mmio, addr, size);
}

void bench_write(struct bench *b, u64 addr, unsigned size, u64 value)
{
    aspace_write(&b->mmio, addr, size, value);
}

u32 bench_config_read(struct bench *b, unsigned slot, unsigned offset, unsigned size)
{
    return (u32)bench_read(b, BENCH_ECAM + (slot << 15) + offset, size);
}

void bench_config_write(struct bench *b, unsigned slot, unsigned offset, unsigned size, u32 value)
{
    bench_write(b, BENCH_ECAM + (slot << 15) + offset, size, value);
}
