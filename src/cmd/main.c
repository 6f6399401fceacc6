/*
 * Where the program starts: picks the verb and returns its exit status. Nothing else calls exit().
 */
#include "cmd/status.h"
#include "cmd/verb.h"
#include "x86/cpuid.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* A full disk or a closed pipe behind standard output must not look like success. */
static int finish(int status)
{
    if (fflush(stdout) && status == STATUS_OK) {
        fprintf(stderr, "trapeze: cannot write to standard output: %s\n", strerror(errno));
        return STATUS_HOST;
    }
    return status;
}

int main(int argc, char **argv)
{
    const char *name = argc > 1 ? argv[1] : NULL;

    host_tsc_watch();
    if (!name) {
        verb_print_all(stderr);
        return STATUS_USAGE;
    }
    /* Habit: these two are verbs in disguise. */
    if (!strcmp(name, "--help") || !strcmp(name, "-h"))
        name = "help";
    if (!strcmp(name, "--version") || !strcmp(name, "-V"))
        name = "version";
    const struct verb *v = verb_find(name);
    if (!v)
        return verb_unknown(name);
    return finish(v->run(v, argv + 2));
}
