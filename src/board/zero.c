/* Clearing guest memory by punching holes into its memfd. Thread: vCPUs are stopped. */
#include "board/zero.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define PAGE 4096ull

int zero_guest(struct gmem *ram, u64 gpa, u64 len)
{
    const struct gmem_slot *slot = gmem_find(ram, gpa);
    u64 first = ALIGN_UP(gpa, PAGE), end = ALIGN_DOWN(gpa + len, PAGE);
    u8 *to;

    if (!len)
        return 0;
    to = gmem_ptr(ram, gpa, len);
    if (!to || !slot)
        return -EFAULT;
    if (end <= first ||
        fallocate(ram->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                  (off_t)(slot->offset + first - slot->gpa), (off_t)(end - first))) {
        memset(to, 0, len);
    } else {
        memset(to, 0, first - gpa);
        memset(to + (end - gpa), 0, gpa + len - end);
    }
    gmem_wrote(ram, gpa, len);
    return 0;
}
