/* What every unit test includes: cmocka with the headers it wants before it. */
#ifndef UNIT_UNIT_H
#define UNIT_UNIT_H

#include "base/types.h"
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Skips the running case; the reason is shown at the end of `make check`. */
#define UNIT_SKIP(reason)                \
    do {                                 \
        print_message("# " reason "\n"); \
        skip();                          \
    } while (0)

/* The declaration is for the fault tier, which gives main another name. */
#define UNIT_MAIN(tests)                                  \
    int main(void);                                       \
    int main(void)                                        \
    {                                                     \
        return cmocka_run_group_tests(tests, NULL, NULL); \
    }

#endif
