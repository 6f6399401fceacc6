/*
 * Turning the current process into the configuration's process. Used by a container's init and by `exec`;
 * both are inside the container's namespaces and root by then.
 */
#ifndef CONTAINER_PROCESS_H
#define CONTAINER_PROCESS_H

#include "container/init.h"
#include "container/report.h"

/* What needs no order: signals, dumpable, OOM score, parent death. Called first of all. */
int process_begin(struct init *in, struct err *err);
/* Ids, groups, bounding set, working directory; privileges for process_finish are kept. Checks the program. */
int process_become(struct init *in, struct err *err);
/*
 * No-new-privs, seccomp, final capabilities. *ret_listener: the seccomp listener, which the runtime must get
 * before the program runs, or -1.
 */
int process_finish(struct init *in, int *ret_listener, struct err *err);
/* execve. Returns only on failure. */
int process_exec(struct init *in, struct err *err);

/*
 * task.c: limits are set in two steps. While we still have the host's rights the hard limits are raised to what
 * is asked for; right before the program they take their values, so that a low one does not hit our own work.
 */
int task_raise_limits(const struct spec_process *p, enum report_level told, struct err *err);
int task_set_limits(const struct spec_process *p, struct err *err);
/* task.c: set from outside by the runtime, which has more rights: scheduler, I/O priority. */
int task_apply(const struct spec_process *p, int pid, struct err *err);
/* task.c: set by the process itself: personality, memory policy. */
int task_apply_self(const struct spec *s, struct err *err);
#define TASK_LIST_BITS 8192
/* task.c: "0-2,5" into a bit array; -EINVAL. */
int task_parse_list(const char *text, unsigned long *bits, size_t bit_count);
/* task.c: binds a process to processors given as a list. */
int task_set_cpus(int pid, const char *list, struct err *err);

/* console.c: makes the terminal, sends its master to in->console, and makes it stdio and controlling tty. */
int console_open(struct init *in, bool mount_console, struct err *err);

#endif
