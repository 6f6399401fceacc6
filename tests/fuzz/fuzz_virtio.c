/*
 * Any bytes as what a guest does to its virtio devices: a list of operations on the rings, registers, configuration
 * space and memory of one device of each kind. The machine lives on from input to input and is reset between them, so
 * that resets are attacked too.
 */
#include "fuzz.h"

#include "base/log.h"
#include "device/virtio_blk.h"
#include "device/virtio_console.h"
#include "device/virtio_net.h"
#include "device/virtio_rng.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM_BYTES (8 * MiB)
#define ECAM 0xe0000000ull
#define WINDOW 0xc0000000ull
#define BAR_BYTES 0x8000ull
#define DEVICES 4u
#define RINGS 0x10000ull /* 16 KiB for each of four queues of each device */
#define BUFFERS 0x200000ull
#define DISK_BYTES (256 * KiB)
#define OPS_MAX 400

enum op { OP_DESC, OP_OFFER, OP_KICK, OP_REGISTER, OP_MEMORY, OP_CONFIG, OP_START, OP_INPUT };

struct input {
    const u8 *at, *end;
};

static struct {
    struct gmem ram;
    struct aspace mmio, pio;
    struct timerq timers;
    struct pci_host *pci;
    struct block_engine *engine;
    struct block *disk;
    struct netport net;
    struct chardev chardev;
    u16 offered[DEVICES][4];
} m;

static u64 take(struct input *in, unsigned bytes)
{
    u64 value = 0;

    for (unsigned i = 0; i < bytes && in->at < in->end; i++)
        value |= (u64)*in->at++ << (i * 8);
    return value;
}

static void net_sink(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                     unsigned niov, size_t len)
{
    static u8 frame[NET_FRAME_MAX];

    if (len > sizeof(frame) || iov_read(iov, niov, 0, frame, sizeof(frame)) != len ||
        (o->csum_partial && o->csum_start + o->csum_offset + 2u > len))
        abort();
}

static const struct netport_ops net_ops = {
    .name = "fuzz", .caps = NET_CSUM | NET_TSO | NET_RX_CSUM, .send = net_sink};

static size_t char_sink(struct chardev *c, const u8 *buf, size_t len)
{
    return len % 3 ? len : len / 2;
}

static void must(int rc)
{
    if (rc)
        abort();
}

static void open_disk(void)
{
    struct block_options o = {0};
    int fd = memfd_create("disk", 0);
    char path[64];

    must(ftruncate(fd, DISK_BYTES));
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    must(block_engine_new("threads", &m.engine, NULL));
    must(block_open(path, &o, m.engine, &m.disk, NULL));
}

static void build(void)
{
    struct pci_host_config c = {.mmio = &m.mmio,
                                .pio = &m.pio,
                                .ecam_base = ECAM,
                                .mmio32_base = WINDOW,
                                .mmio32_len = 0x20000000};
    struct virtio_env env = {.ram = &m.ram, .timers = &m.timers, .cpus = 2};
    struct virtio_blk_options blk = {.serial = "fuzz"};
    struct virtio_net_options net = {.port = &m.net, .mac = {2, 0, 0, 0, 0, 1}};
    struct virtio_console_options con = {.port = &m.chardev};

    log_set_level(LOG_ERROR);
    must(gmem_init(&m.ram, RAM_BYTES, NULL));
    aspace_init(&m.mmio, 1ull << 48);
    aspace_init(&m.pio, 65536);
    timerq_init(&m.timers);
    m.timers.stepped = true;
    m.net.ops = &net_ops;
    m.chardev.write = char_sink;
    open_disk();
    must(pci_host_new(&c, &m.pci, NULL));
    env.pci = m.pci;
    blk.disk = m.disk;
    must(virtio_new(&env, &virtio_blk_type, 1, &blk, NULL, NULL));
    must(virtio_new(&env, &virtio_net_type, 2, &net, NULL, NULL));
    must(virtio_new(&env, &virtio_console_type, 3, &con, NULL, NULL));
    must(virtio_new(&env, &virtio_rng_type, 4, NULL, NULL, NULL));
}

static u64 bar(unsigned d)
{
    return WINDOW + d * BAR_BYTES;
}

static u64 ring(unsigned d, unsigned q)
{
    return RINGS + (d * 4 + q) * 0x4000ull;
}

static void config(unsigned d, unsigned offset, unsigned size, u32 value)
{
    aspace_write(&m.mmio, ECAM + ((d + 1) << 15) + offset, size, value);
}

static void start(unsigned d, u32 without)
{
    u64 common = bar(d);

    config(d, PCI_COMMAND, 2, PCI_COMMAND_MEM | PCI_COMMAND_MASTER);
    aspace_write(&m.mmio, common + 20, 1, 0);
    aspace_write(&m.mmio, common + 20, 1, 3);
    for (u32 i = 0; i < 2; i++) {
        aspace_write(&m.mmio, common, 4, i);
        aspace_write(&m.mmio, common + 8, 4, i);
        aspace_write(&m.mmio, common + 12, 4,
                     aspace_read(&m.mmio, common + 4, 4) & ~(i ? 0 : without));
    }
    aspace_write(&m.mmio, common + 20, 1, 11);
    for (unsigned q = 0; q < 4; q++) {
        aspace_write(&m.mmio, common + 22, 2, q);
        aspace_write(&m.mmio, common + 32, 8, ring(d, q));
        aspace_write(&m.mmio, common + 40, 8, ring(d, q) + 0x2000);
        aspace_write(&m.mmio, common + 48, 8, ring(d, q) + 0x3000);
        aspace_write(&m.mmio, common + 28, 2, 1);
        m.offered[d][q] = 0;
        gmem_write(&m.ram, ring(d, q) + 0x2002, &m.offered[d][q], 2);
    }
    aspace_write(&m.mmio, common + 20, 1, 15);
}

/* Small numbers make addresses near the things that matter. */
static u64 address(struct input *in, unsigned d, unsigned q)
{
    u64 raw = take(in, 3);

    switch (raw & 7) {
    case 0:
        return RAM_BYTES - (raw >> 16);
    case 1:
        return ring(d, q) + (raw >> 8);
    case 2:
        return bar(d) + (raw >> 8);
    case 3:
        return ~0ull - (raw >> 8);
    }
    return BUFFERS + (raw >> 3);
}

static void do_desc(struct input *in, unsigned d, unsigned q)
{
    struct {
        u64 addr;
        u32 len;
        u16 flags, next;
    } desc;
    u8 index = (u8)take(in, 1);

    desc.addr = address(in, d, q);
    desc.len = (u32)take(in, 2);
    desc.flags = (u16)take(in, 1);
    if (desc.flags & 0x80)
        desc.len <<= 16;
    desc.flags &= 7;
    desc.next = (u16)take(in, 1);
    gmem_write(&m.ram, ring(d, q) + index * 16u, &desc, sizeof(desc));
}

static void do_offer(struct input *in, unsigned d, unsigned q)
{
    u16 head = (u16)take(in, 1), idx = ++m.offered[d][q];

    gmem_write(&m.ram, ring(d, q) + 0x2004 + 2u * ((idx - 1u) % 256), &head, 2);
    gmem_write(&m.ram, ring(d, q) + 0x2002, &idx, 2);
}

static void do_input(struct input *in, unsigned d)
{
    static u8 bytes[NET_FRAME_MAX];
    struct net_offload o = {.csum_good = true};
    size_t len = take(in, 2);
    struct iovec iov = {bytes, len};

    memset(bytes, 0xff, 6);
    if (d == 1 && m.net.receive)
        m.net.receive(m.net.opaque, &o, &iov, 1, len);
    else if (d == 2 && m.chardev.front.receive)
        m.chardev.front.receive(m.chardev.front.opaque, bytes, len);
    else
        timerq_step(&m.timers, (s64)len * 1000000);
}

static void step(struct input *in)
{
    static const unsigned sizes[] = {1, 2, 4, 8};
    u8 head = (u8)take(in, 1);
    unsigned d = (head >> 3) % DEVICES, q = head >> 6;
    u8 value[8];

    switch ((enum op)(head & 7)) {
    case OP_DESC:
        do_desc(in, d, q);
        break;
    case OP_OFFER:
        do_offer(in, d, q);
        break;
    case OP_KICK:
        aspace_write(&m.mmio, bar(d) + 0x3000 + q * 4, 2, q);
        break;
    case OP_REGISTER: {
        u64 offset = take(in, 2);
        unsigned size = sizes[q];

        aspace_read(&m.mmio, bar(d) + offset % BAR_BYTES, size);
        aspace_write(&m.mmio, bar(d) + offset % BAR_BYTES, size, take(in, 4));
        break;
    }
    case OP_MEMORY: {
        u64 gpa = address(in, d, q), eight = take(in, 8);

        memcpy(value, &eight, 8);
        gmem_write(&m.ram, gpa, value, 8);
        break;
    }
    case OP_CONFIG: {
        unsigned offset = (unsigned)take(in, 1);

        config(d, offset, sizes[q & 1], (u32)take(in, 4));
        aspace_read(&m.mmio, ECAM + ((d + 1) << 15) + offset, 4);
        break;
    }
    case OP_START:
        start(d, (u32)take(in, 4));
        break;
    case OP_INPUT:
        do_input(in, d);
        break;
    }
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct input in = {data, data + size};

    if (!m.pci)
        build();
    for (unsigned d = 0; d < DEVICES; d++)
        start(d, 0);
    for (unsigned i = 0; i < OPS_MAX && in.at < in.end; i++)
        step(&in);
    pci_host_quiesce(m.pci);
    pci_host_resume(m.pci);
    pci_host_reset(m.pci);
    return 0;
}
