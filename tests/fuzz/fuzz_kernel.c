/* A kernel image of any kind, and a board of 32 MiB that tries to start it twice. hostile.md 50-55. */
#include "board/board.h"
#include "fuzz.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define RAM (32 * MiB)

struct machine {
    struct gmem ram;
    struct timerq timers;
    struct cpu_model model;
    struct board *b;
    struct x86_cpu cpu;
};

static int file_of(const u8 *data, size_t size, char path[32])
{
    int fd = memfd_create("kernel", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct machine *m = aligned_alloc(64, ALIGN_UP(sizeof(*m), 64));
    struct board_kernel k = {.cmdline = "quiet"};
    struct board_config c = {.name = "fuzz", .cpus = 1};
    char path[32];
    int fd = file_of(data, size, path);

    if (!m)
        abort();
    memset(m, 0, sizeof(*m));
    m->model.phys_bits = 40;
    m->model.tsc_khz = 1000000;
    timerq_init(&m->timers);
    m->timers.stepped = true;
    if (gmem_init(&m->ram, RAM, NULL))
        abort();
    c.ram = &m->ram;
    c.model = &m->model;
    c.timers = &m->timers;
    if (board_new(&c, &m->b, NULL))
        abort();
    k.kernel = k.initrd = path;
    if (!board_open_kernel(m->b, &k, NULL) && !board_boot(m->b, &m->cpu, NULL)) {
        board_reset(m->b);
        board_boot(m->b, &m->cpu, NULL);
    }
    board_free(m->b);
    timerq_fini(&m->timers);
    gmem_fini(&m->ram);
    close(fd);
    free(m);
    return 0;
}
