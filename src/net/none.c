/* A port that drops everything: a cable with nothing at the other end. */
#include "net/netport.h"
#include <errno.h>
#include <stdlib.h>

static void none_send(struct netport *p, const struct net_offload *o, const struct iovec *iov,
                      unsigned niov, size_t len)
{
}

static void none_close(struct netport *p)
{
    free(p);
}

static const struct netport_ops none_ops = {.name = "none", .send = none_send, .close = none_close};

int net_none_open(struct netport **ret_port, struct err *err)
{
    struct netport *p = calloc(1, sizeof(*p));

    if (!p)
        return err_set(err, ENOMEM, "network: no memory");
    p->ops = &none_ops;
    *ret_port = p;
    return 0;
}

void netport_close(struct netport *p)
{
    if (p)
        p->ops->close(p);
}
