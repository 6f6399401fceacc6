/* Command-line options as Go's flag package reads them: -name, --name, --name=value, --name value. */
#ifndef CONTAINER_OPTION_H
#define CONTAINER_OPTION_H

#include "base/err.h"
#include "container/pool.h"

enum option_kind { OPTION_FLAG, OPTION_VALUE, OPTION_LIST };

struct option {
    const char *name;
    char letter; /* 0: none */
    enum option_kind kind;
    void *out;        /* bool, const char *, or struct strv */
    const char *word; /* what stands for the value in --help; NULL: "value" */
    const char *help;
};

/*
 * Reads options from argv[*at] on until the first argument that is none (or after "--"); *at is then its
 * index. `-EINVAL` with runc's wording for an unknown option. Lists grow in the pool.
 */
int option_parse(struct pool *p, const struct option *opts, size_t n, int argc, char **argv,
                 int *at, struct err *err);
void option_print(const struct option *opts, size_t n);

#endif
