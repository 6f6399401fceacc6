/* Choosing an engine: io_uring where the kernel and its policy allow it, else a pool of threads. */
#include "block/disk.h"
#include <errno.h>
#include <string.h>

static const struct block_engine_ops *const engines[] = {&block_uring, &block_threads};

/* Formats wait, also for requests that the engine has: so they need threads of their own. */
static int new_engine(const struct block_engine_ops *ops, struct block_engine **ret_engine,
                      struct err *err)
{
    struct block_engine *e;
    int rc = ops->new (&e, err);

    if (rc)
        return rc;
    rc = block_threads.new(&e->slow, err);
    if (rc) {
        ops->free(e);
        return rc;
    }
    *ret_engine = e;
    return 0;
}

int block_engine_new(const char *name, struct block_engine **ret_engine, struct err *err)
{
    bool automatic = strcmp(name, "auto") == 0;

    for (unsigned i = 0; i < ARRAY_LEN(engines); i++) {
        int rc;

        if (!automatic && strcmp(name, engines[i]->name) != 0)
            continue;
        rc = new_engine(engines[i], ret_engine, err);
        if (rc == 0 || !automatic || i + 1 == ARRAY_LEN(engines))
            return rc;
    }
    return err_set(err, EINVAL, "disk engine \"%s\" is unknown; there are auto, uring and threads",
                   name);
}

void block_engine_free(struct block_engine *e)
{
    if (e && e->slow)
        e->slow->ops->free(e->slow);
    if (e)
        e->ops->free(e);
}

const char *block_engine_name(const struct block_engine *e)
{
    return e->ops->name;
}
