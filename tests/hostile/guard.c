/*
 * Guards around a translator that runs hostile code: pattern pages next to its mappings, a large region that must stay
 * untouched even by reads (the kernel tells which of its pages are there), a seccomp filter that looks at where a
 * system call comes from, and a look at the process's own mappings. One thread.
 */
#include "guard.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#define CANARIES 2
#define CANARY_BYTES (4 * MiB)
#define PATTERN 0x5a
#define REGION_BYTES (32 * GiB)

static u8 *canary[CANARIES];
static unsigned ncanaries;
static u8 *region, *present; /* a byte per page of it */
static u64 code_start, code_end;

void guard_surround(void)
{
    u8 *p = mmap(NULL, CANARY_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (p == MAP_FAILED || ncanaries == CANARIES)
        return;
    if (!region) { /* first of all: what comes later lies below it */
        present = mmap(NULL, REGION_BYTES / 4096, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        region = mmap(NULL, REGION_BYTES, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    }
    memset(p, PATTERN, CANARY_BYTES);
    canary[ncanaries++] = p;
}

u64 guard_host_address(u64 random)
{
    u64 at = random >> 8 & (CANARY_BYTES - 1);

    switch (random & 7) {
    case 0:
        return (u64)&code_start;
    case 1:
        return code_start + (at & 0xffff);
    case 2:
        return (u64)__builtin_frame_address(0) + (at & 0xfff);
    default:
        return (u64)canary[random & 1] + at;
    }
}

bool guard_intact(void)
{
    for (unsigned i = 0; i < ncanaries; i++)
        if (canary[i][0] != PATTERN || memcmp(canary[i], canary[i] + 1, CANARY_BYTES - 1))
            return false;
    if (region == MAP_FAILED || present == MAP_FAILED || mincore(region, REGION_BYTES, present))
        return true;
    return !memchr(present, 1, REGION_BYTES / 4096);
}

/* Calls fn for each line of our mappings; stops at false. */
static bool each_mapping(bool (*fn)(u64 from, u64 to, const char *rights, const char *line))
{
    char line[512], rights[8];
    unsigned long from, to;
    FILE *f = fopen("/proc/self/maps", "re");
    bool ok = f;

    while (ok && fgets(line, sizeof(line), f))
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) == 3)
            ok = fn(from, to, rights, line);
    if (f)
        fclose(f);
    return ok;
}

static bool not_both(u64 from, u64 to, const char *rights, const char *line)
{
    (void)from, (void)to, (void)line;
    return !(rights[1] == 'w' && rights[2] == 'x');
}

bool guard_maps_ok(void)
{
    return each_mapping(not_both);
}

static bool note_code(u64 from, u64 to, const char *rights, const char *line)
{
    if (rights[2] == 'x' && strstr(line, "trapeze-code"))
        code_start = from, code_end = to;
    return true;
}

#define LOAD(field) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define LOAD_HIGH(field) \
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field) + 4)
#define IF(op, value, yes, no) BPF_JUMP(BPF_JMP | (op) | BPF_K, (u32)(value), yes, no)
/* From [first, last] of the addresses whose upper half is `high`: the end. */
#define NOT_FROM(high, first, last)                                                     \
    LOAD_HIGH(instruction_pointer), IF(BPF_JEQ, high, 0, 4), LOAD(instruction_pointer), \
        IF(BPF_JGE, first, 0, 2), IF(BPF_JGT, last, 1, 0), END(SECCOMP_RET_KILL_PROCESS)
#define END(what) BPF_STMT(BPF_RET | BPF_K, what)
#define ALLOW(name) IF(BPF_JEQ, SYS_##name, 0, 1), END(SECCOMP_RET_ALLOW)

int guard_calls(void)
{
    each_mapping(note_code);
    if (!code_end)
        return -1;
    u64 last = code_end - 1, high = code_start >> 32;
    bool split = high != last >> 32; /* the filter compares 32 bits at a time */
    struct sock_filter filter[] = {
        NOT_FROM(high, code_start, split ? ~0u : last),
        NOT_FROM(last >> 32, split ? 0 : code_start, last),
        LOAD(nr),
        ALLOW(mprotect),
        ALLOW(rt_sigreturn),
        ALLOW(sched_yield),
        ALLOW(futex),
        ALLOW(timer_settime),
        ALLOW(setitimer),
        ALLOW(clock_gettime),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(brk),
        ALLOW(madvise),
        ALLOW(write),
        ALLOW(exit_group),
        /* to look at /proc/self/maps */
        ALLOW(openat),
        ALLOW(read),
        ALLOW(close),
        ALLOW(newfstatat),
        ALLOW(rt_sigaction),
        ALLOW(mincore),
        END(SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {.len = ARRAY_LEN(filter), .filter = filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
        return -1;
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program);
}
