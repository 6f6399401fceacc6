/*
 * A guest that is worth moving: it holds memory with known contents, rewrites a working set page by page at a chosen rate and
 * checks each page before, and writes a byte to the debug port every millisecond, which counts from '@' to '_' and
 * again. Whoever stamps those bytes sees how long the guest was dark, and whether it lost or repeated any of its life.
 *
 * Command line: set=MiB fill=MiB rate=MiB/s words=N (of each page that change; 512: all) same=N (words in a row, so that memory
 * can be compressed) work=N (between pages it calculates, and writes a 'w' after every N steps; a page counts for as many as
 * could have been done in its time, see measure()) seconds=N (then it ends with success).
 * A wrong byte or a clock that goes back ends it through the exit port, with a message.
 */
#include "payload.h"

#define PORT_PM_TIMER 0x608 /* of our board, and where SeaBIOS puts QEMU's */
#define PM_TIMER_HZ 3579545ull
#define FIRST 0x2000000ull /* behind what the payload library hands out */
#define PAGE 4096ull
#define WORDS 512
#define MEASURED 1024 /* pages */

extern u32 start_info;

static u32 inl(u16 port)
{
    u32 v;

    asm volatile("inl %1, %0" : "=a"(v) : "Nd"(port));
    return v;
}

struct walk {
    u64 set_pages, fill_pages, rate, words, same, work, seconds;
    u64 page, generation; /* the next one to be rewritten, for the how manieth time */
    u64 fill_at;
    u64 steps, result; /* of its own work */
    u64 page_steps;    /* that a page counts for */
};

static u64 argument(const char *line, const char *name, u64 otherwise)
{
    for (; *line; line++) {
        const char *a = line, *b = name;

        while (*b && *a == *b)
            a++, b++;
        if (*b || *a != '=')
            continue;
        u64 value = 0;
        for (a++; *a >= '0' && *a <= '9'; a++)
            value = value * 10 + (u64)(*a - '0');
        return value;
    }
    return otherwise;
}

static u64 mix(u64 x)
{
    x ^= x >> 31;
    x *= 0x9e3779b97f4a7c15ull;
    return x ^ x >> 29;
}

/* The i-th word of a page that was written for the g-th time. */
static u64 word_of(const struct walk *w, u64 page, u64 generation, u64 i)
{
    u64 base = mix(page * 0x100000001b3ull + (i < w->words ? generation : 0) + 1);

    return base + (i & ~(w->same - 1)) * 0xff51afd7ed558ccdull;
}

static _Noreturn void fail(const char *what, u64 page, u64 i, u64 found)
{
    say("\nwalker: %s: page %lx word %lu is %lx\n", what, page, i, found);
    report(false, what);
    finish();
}

static void check_page(const struct walk *w, const char *what, u64 page, u64 generation)
{
    const volatile u64 *p = (const u64 *)(FIRST + page * PAGE);

    for (u64 i = 0; i < WORDS; i++)
        if (p[i] != word_of(w, page, generation, i))
            fail(what, page, i, p[i]);
}

static void write_page(const struct walk *w, u64 page, u64 generation, u64 words)
{
    volatile u64 *p = (u64 *)(FIRST + page * PAGE);

    for (u64 i = 0; i < words; i++)
        p[i] = word_of(w, page, generation, i);
}

static u64 tsc_per_s(void)
{
    u32 start = inl(PORT_PM_TIMER) & 0xffffff, now;
    u64 tsc = rdtsc();

    do
        now = (inl(PORT_PM_TIMER) - start) & 0xffffff;
    while (now < PM_TIMER_HZ / 20);
    return (rdtsc() - tsc) * PM_TIMER_HZ / now;
}

/* One page of the working set, and now and then one of the rest. */
static void step(struct walk *w)
{
    if (w->set_pages) {
        check_page(w, "working set", w->page, w->generation);
        write_page(w, w->page, w->generation + 1, w->words);
        if (++w->page == w->set_pages) {
            w->page = 0;
            w->generation++;
        }
    }
    if (w->fill_pages && (w->page & 15) == 0) {
        check_page(w, "what is never written", w->set_pages + w->fill_at, 0);
        w->fill_at = (w->fill_at + 1) % w->fill_pages;
    }
}

static void count(struct walk *w, u64 steps)
{
    u64 before = w->steps / w->work;

    w->steps += steps;
    for (u64 n = w->steps / w->work - before; n; n--)
        outb(PORT_DEBUG, 'w');
}

/* What it would do if nobody measured anything. */
static void calculate(struct walk *w)
{
    for (u64 i = 0; i < 64; i++)
        w->result = mix(w->result + i);
}

/* How many steps take as long as a page, before anybody makes either slower. The first round is for the processor's caches and
 * for a translator. */
static void measure(struct walk *w)
{
    u64 pages_took = 0, steps_took = 0;

    for (int round = 0; round < 2; round++) {
        u64 start = rdtsc();

        for (u64 i = 0; i < MEASURED; i++)
            step(w);
        pages_took = rdtsc() - start;
        start = rdtsc();
        for (u64 i = 0; i < 64 * MEASURED; i++)
            calculate(w);
        steps_took = rdtsc() - start;
    }
    w->page_steps = 64 * pages_took / steps_took;
}

static void walk(struct walk *w, u64 hz)
{
    u64 start = rdtsc(), last = start, tick = start, ticks = 0, pages = 0;
    u64 per_page = w->rate ? hz / (w->rate * 256) : 0, due = start;

    for (;;) {
        u64 now = rdtsc();

        if (now < last)
            fail("the clock went back", 0, last, now);
        last = now;
        if (now >= tick) {
            outb(PORT_DEBUG, (u8)('@' + ticks++ % 32));
            tick = now + hz / 1000;
        }
        if (w->seconds && now - start > w->seconds * hz)
            break;
        if (!w->rate || now < due) {
            if (w->work) {
                calculate(w);
                count(w, 1);
            }
            continue;
        }
        step(w);
        if (w->work)
            count(w, w->page_steps);
        pages++;
        /* Time in which it stood still is not made up for. */
        due = now - due > hz / 20 ? now : due + per_page;
    }
    say("\nwalker: %lu pages\n", pages);
    report(true, "all that was read was right");
}

void payload_main(void)
{
    /* hvm_start_info: the command line's address is at 24. */
    const char *line = start_info ? (const char *)*(u64 *)((u64)start_info + 24) : "";
    struct walk w = {.set_pages = argument(line, "set", 4) * 256,
                     .fill_pages = argument(line, "fill", 4) * 256,
                     .rate = argument(line, "rate", 20),
                     .words = argument(line, "words", WORDS),
                     .same = argument(line, "same", 1), /* a power of two */
                     .work = argument(line, "work", 0),
                     .seconds = argument(line, "seconds", 0)};

    for (u64 page = 0; page < w.set_pages + w.fill_pages; page++)
        write_page(&w, page, 0, WORDS);
    if (w.work)
        measure(&w);
    walk(&w, tsc_per_s());
}
