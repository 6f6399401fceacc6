/* Memory of this host. */
#ifndef CMD_MEMORY_H
#define CMD_MEMORY_H

#include "base/types.h"

/* Bytes that can be used without anything being swapped out, or killed for a limit of our control group; 0: unknown. */
u64 memory_available(void);

#endif
