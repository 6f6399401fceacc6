/*
 * Memory of this host, as proc(5) has it, and what the control groups that we are in leave of it (Linux
 * Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst), where they are mounted as everybody does.
 */
#include "cmd/memory.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

/* The number behind NAME in a file of lines "NAME NUMBER"; without NAME: the file's only one. False: "max", or no file. */
static bool read_number(const char *path, const char *name, u64 *ret)
{
    unsigned long long n = 0;
    char line[128], word[64];
    bool found = false;
    FILE *f = fopen(path, "re");

    while (f && !found && fgets(line, sizeof(line), f))
        found = name ? sscanf(line, "%63s %llu", word, &n) == 2 && !strcmp(word, name)
                     : sscanf(line, "%llu", &n) == 1;
    if (f)
        fclose(f);
    if (found)
        *ret = n;
    return found;
}

struct group_files {
    const char *mount, *limit, *usage,
        *cache; /* cache: in memory.stat, given back when memory is short */
};

static const struct group_files files_v1 = {"/sys/fs/cgroup/memory", "memory.limit_in_bytes",
                                            "memory.usage_in_bytes", "total_inactive_file"};
static const struct group_files files_v2 = {"/sys/fs/cgroup", "memory.max", "memory.current",
                                            "inactive_file"};

static u64 left_in(const struct group_files *files, const char *group)
{
    char path[PATH_MAX];
    u64 limit, usage, cache = 0;

    snprintf(path, sizeof(path), "%s%s/%s", files->mount, group, files->limit);
    if (!read_number(path, NULL, &limit))
        return UINT64_MAX;
    snprintf(path, sizeof(path), "%s%s/%s", files->mount, group, files->usage);
    if (!read_number(path, NULL, &usage))
        return UINT64_MAX;
    snprintf(path, sizeof(path), "%s%s/memory.stat", files->mount, group);
    read_number(path, files->cache, &cache);
    return limit > usage - MIN(cache, usage) ? limit - (usage - MIN(cache, usage)) : 0;
}

/* The group and all above it: the narrowest counts. */
static u64 left_in_all(const struct group_files *files, char *group)
{
    u64 left = left_in(files, group);

    for (char *slash; (slash = strrchr(group, '/'));) {
        *slash = 0;
        u64 above = left_in(files, group);
        left = MIN(left, above);
    }
    return left;
}

static u64 left_by_groups(void)
{
    char line[PATH_MAX], *group;
    u64 left = UINT64_MAX;
    FILE *f = fopen("/proc/self/cgroup", "re");

    while (f && fgets(line, sizeof(line), f)) {
        const struct group_files *files = !strncmp(line, "0::", 3)   ? &files_v2
                                          : strstr(line, ":memory:") ? &files_v1
                                                                     : NULL;

        line[strcspn(line, "\n")] = 0;
        group = files ? strchr(strchr(line, ':') + 1, ':') : NULL;
        u64 here = group ? left_in_all(files, group + 1) : UINT64_MAX;
        left = MIN(left, here);
    }
    if (f)
        fclose(f);
    return left;
}

u64 memory_available(void)
{
    u64 kib = 0, left = left_by_groups();

    return read_number("/proc/meminfo", "MemAvailable:", &kib) ? MIN(kib * KiB, left) : 0;
}
