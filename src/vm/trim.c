/*
 * Giving back memory that only the start of a machine needed: options, records, libraries' tables, unpacking a kernel.
 * Segments that are never written (code and constants) hold nothing but what is in their file, so their pages may go;
 * the few that a running machine uses are in the page cache and come back in groups. A debugger's breakpoints would be lost
 * with them: its process is left alone. Main thread; also locked in, where it cannot open a file any more.
 */
#include "vm/trim.h"

#include "base/types.h"
#include <link.h>
#include <malloc.h>
#include <stdio.h>
#include <sys/mman.h>

#define AFTER_NS (NS_PER_S / 2)

static bool is_traced(void)
{
    FILE *status = fopen("/proc/self/status", "re");
    char line[128];
    int tracer = 0;

    while (status && fgets(line, sizeof(line), status))
        if (sscanf(line, "TracerPid: %d", &tracer) == 1)
            break;
    if (status)
        fclose(status);
    return tracer;
}

static int drop_segments(struct dl_phdr_info *object, size_t size, void *unused)
{
    (void)size, (void)unused;
    for (unsigned i = 0; i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &object->dlpi_phdr[i];
        u64 start = ALIGN_UP(object->dlpi_addr + p->p_vaddr, 4096);
        u64 end = (object->dlpi_addr + p->p_vaddr + p->p_filesz) & ~4095ull;
        if (p->p_type == PT_LOAD && !(p->p_flags & PF_W) && start < end)
            madvise((void *)start, end - start,
                    MADV_DONTNEED); /* not of the vDSO: then nothing happens */
    }
    return 0;
}

static void trim_heap(void *unused)
{
    (void)unused;
    malloc_trim(0);
}

static void trim_all(void *unused)
{
    dl_iterate_phdr(drop_segments, NULL);
    trim_heap(unused);
}

void trim_later(struct timer *t, struct timerq *q)
{
    timer_init(t, q, is_traced() ? trim_heap : trim_all, NULL);
    timer_arm(t, timerq_now(q) + AFTER_NS);
}
