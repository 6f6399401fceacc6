/* Copies between guest memory and our buffers without touching vector registers. Light code on the vCPU's thread. */
#include "accel/bt/vecmem.h"

static void copy(void *dst, const void *src, u64 len)
{
    __asm__ volatile("rep movsb" : "+D"(dst), "+S"(src), "+c"(len) : : "memory");
}

void vecmem_write(struct cpu *c, u64 lin, const void *buf, unsigned len)
{
    const u8 *from = buf;
    while (len) {
        unsigned n = 0;
        void *to = mem_span(c, lin, true, &n, AS_CPL);
        if (to) {
            n = MIN(n, len);
            copy(to, from, n);
        } else {
            n = 1;
            mem_store(c, lin, 1, *from, AS_CPL);
        }
        lin += n;
        from += n;
        len -= n;
    }
}

void vecmem_read(struct cpu *c, u64 lin, void *buf, unsigned len)
{
    u8 *to = buf;
    while (len) {
        unsigned n = 0;
        const void *from = mem_span(c, lin, false, &n, AS_CPL);
        if (from) {
            n = MIN(n, len);
            copy(to, from, n);
        } else {
            n = 1;
            *to = (u8)mem_load(c, lin, 1, AS_CPL);
        }
        lin += n;
        to += n;
        len -= n;
    }
}
