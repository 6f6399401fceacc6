/* Labels of AppArmor and SELinux, where the kernel has them (config.md: apparmorProfile, selinuxLabel). */
#ifndef CONTAINER_LSM_H
#define CONTAINER_LSM_H

#include "container/spec.h"

bool lsm_has_apparmor(void);
bool lsm_has_selinux(void);
/* The next execve of this process gets the configured labels. */
int lsm_apply(int procfd, const struct spec_process *p, struct err *err);

#endif
