/*
 * A guest whose life can be seen: the only program of a Debian kernel, for bench/snapshot.py. It fills memory with what
 * does not compress, then does what single bytes on its console tell it:
 *
 *   t  from now on, write a byte to the debug port (0xe9) every millisecond; 'q': no more
 *   w  write 20 MiB anew, then return the 'w'
 *   any other byte: return it
 *
 * usage, on the kernel's command line behind "--": MiB to fill (300)
 */
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/io.h>
#include <sys/mman.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define DEBUG_PORT 0xe9
#define MIB 1048576ull
#define TICK_NS 1000000ull
#define REWRITE (20 * MIB)

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static void fill(uint64_t *memory, uint64_t bytes)
{
    static uint64_t x = 0x9e3779b97f4a7c15;

    for (uint64_t i = 0; i < bytes / sizeof(x); i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        memory[i] = x;
    }
}

/* What the console says next; -1: nothing yet. Waits for it unless there are ticks to be written. */
static int next_command(int ticking)
{
    struct pollfd p = {.fd = STDIN_FILENO, .events = POLLIN};
    unsigned char c;

    if (poll(&p, 1, ticking ? 0 : -1) <= 0 || read(STDIN_FILENO, &c, 1) != 1)
        return -1;
    return c;
}

static void answer(char c)
{
    if (write(STDOUT_FILENO, &c, 1) != 1)
        _exit(1);
}

static void live(uint64_t *memory)
{
    uint64_t next = 0;
    int ticking = 0;

    for (;;) {
        int c = next_command(ticking);

        if (c == 'w')
            fill(memory, REWRITE);
        if (c == 't' || c == 'q')
            ticking = c == 't';
        else if (c >= 0)
            answer((char)c);
        while (ticking && now_ns() < next)
            ;
        if (ticking) {
            outb('.', DEBUG_PORT);
            next = now_ns() + TICK_NS;
        }
    }
}

int main(int argc, char **argv)
{
    uint64_t bytes = (argc > 1 ? strtoull(argv[1], NULL, 10) : 300) * MIB;
    uint64_t *memory =
        mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct termios raw;

    if (memory == MAP_FAILED || ioperm(DEBUG_PORT, 1, 1))
        return 1;
    if (!tcgetattr(STDIN_FILENO, &raw)) {
        cfmakeraw(&raw);
        tcsetattr(STDIN_FILENO, TCSANOW, &raw);
    }
    fill(memory, bytes);
    puts("filled");
    fflush(stdout);
    live(memory);
}
