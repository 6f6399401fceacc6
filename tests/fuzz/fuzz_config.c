/* Any bytes as a container's configuration: it is read or refused, and what was read can be compiled. */
#include "fuzz.h"

#include "container/mount.h"
#include "container/seccomp.h"
#include "container/spec.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
    struct pool pool = {0};
    struct spec s = {0};
    struct seccomp_prog prog = {0};
    struct err err = ERR_INIT;
    auto_free char *text = malloc(size + 1);
    json_t *doc;

    if (!text)
        return 0;
    if (size)
        memcpy(text, data, size);
    text[size] = '\0';
    if (json_parse(text, size, "fuzz", &doc, &err) == 0) {
        if (spec_parse(&s, &pool, doc, &err) == 0) {
            for (size_t i = 0; i < s.mount_count; i++) {
                struct mount_opts o;

                mount_opts_parse(&pool, &s.mounts[i].options, &o, &err);
            }
            if (seccomp_compile(s.seccomp, &prog, &err) == 0 && prog.count)
                munmap(prog.insns, prog.count * 8ul);
        }
        spec_fini(&s);
    }
    pool_fini(&pool);
    return 0;
}
