/* Where a migration goes or is waited for: tcp://HOST:PORT, unix:PATH, ssh://[USER@]HOST. */
#ifndef CMD_TARGET_H
#define CMD_TARGET_H

#include "base/err.h"

enum target_kind { TARGET_TCP, TARGET_UNIX, TARGET_SSH };

struct target {
    enum target_kind kind;
    char host[256]; /* without brackets; of ssh: what ssh takes */
    char port[16];  /* of ssh: empty unless given */
    const char *path;
};

int target_parse(const char *text, struct target *ret_target, struct err *err);
/* A connected descriptor. plain: without TLS; then TCP goes to this host only, unless `insecure`. */
int target_connect(const struct target *t, bool plain, bool insecure, int *ret_fd, struct err *err);
/* A listening one, under the same rule. */
int target_listen(const struct target *t, bool plain, bool insecure, int *ret_fd, struct err *err);
/* Makes a dead line an error within half a minute, and small messages go out at once. */
void target_tune(int fd);

#endif
