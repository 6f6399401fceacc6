/* Stand-ins for the system helpers of tests that only decode: no form is special then. */
#include "accel/bt/sys.h"

const struct sys_entry sys_system[] = {{0, NULL, false}};
const struct sys_entry sys_legacy[] = {{0, NULL, false}};
const struct sys_entry sys_vector[] = {{0, NULL, false}};
