/*
 * MC146818 real-time clock. Motorola MC146818A data sheet; CMOS bytes beyond the clock as PC
 * firmware uses them.
 *
 * Time is not counted but computed: the guest's clock is the host's wall clock plus offset_s. One
 * timer serves periodic, update and alarm interrupts; it is armed only when the guest has enabled
 * one of them, so that an idle guest costs nothing. Flags of disabled interrupts are brought up to
 * date when register C is read.
 *
 * Threads: see rtc.h.
 */
#include "device/rtc.h"
#include "device/calendar.h"
#include <string.h>
#include <time.h>

enum {
    RTC_SEC = 0,
    RTC_SEC_ALARM = 1,
    RTC_MIN = 2,
    RTC_MIN_ALARM = 3,
    RTC_HOUR = 4,
    RTC_HOUR_ALARM = 5,
    RTC_WEEKDAY = 6,
    RTC_DAY = 7,
    RTC_MONTH = 8,
    RTC_YEAR = 9,
    RTC_A = 10,
    RTC_B = 11,
    RTC_C = 12,
    RTC_D = 13,
    RTC_CENTURY = 0x32,
};
#define A_UPDATE 0x80
#define B_SET 0x80
#define B_PERIODIC 0x40
#define B_ALARM 0x20
#define B_UPDATE 0x10
#define B_BINARY 0x04
#define B_24H 0x02
#define C_IRQ 0x80
#define C_FLAGS 0x70
#define HZ 32768
#define UPDATE_NS 244141 /* register A says "update in progress" this long before the second */
#define PERIODIC_MIN_NS 122070

static s64 wall_ns(const struct rtc *r)
{
    struct timespec ts;

    if (r->wall_ns)
        return r->wall_ns(r->wall_opaque);
    clock_gettime(CLOCK_REALTIME, &ts);
    return (s64)ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static s64 now_s(const struct rtc *r)
{
    return wall_ns(r) / NS_PER_S + r->s.offset_s;
}

static u8 encode(const struct rtc *r, int v)
{
    return (u8)(r->s.cmos[RTC_B] & B_BINARY ? v : v / 10 << 4 | v % 10);
}

static int decode(const struct rtc *r, u8 v)
{
    return r->s.cmos[RTC_B] & B_BINARY ? v : (v >> 4) * 10 + (v & 15);
}

static u8 encode_hour(const struct rtc *r, int hour)
{
    u8 v;

    if (r->s.cmos[RTC_B] & B_24H)
        return encode(r, hour);
    v = encode(r, hour % 12 ? hour % 12 : 12);
    return (u8)(hour >= 12 ? v | 0x80 : v);
}

static int decode_hour(const struct rtc *r, u8 v)
{
    int hour;

    if (r->s.cmos[RTC_B] & B_24H)
        return decode(r, v);
    hour = decode(r, v & 0x7f) % 12;
    return v & 0x80 ? hour + 12 : hour;
}

/* Writes the time into the clock registers, unless the guest holds them (SET). */
static void show_time(struct rtc *r)
{
    u8 *c = r->s.cmos;
    struct calendar t;

    if (c[RTC_B] & B_SET)
        return;
    calendar_from_s(now_s(r), &t);
    c[RTC_SEC] = encode(r, t.sec);
    c[RTC_MIN] = encode(r, t.min);
    c[RTC_HOUR] = encode_hour(r, t.hour);
    c[RTC_WEEKDAY] = encode(r, t.weekday + 1);
    c[RTC_DAY] = encode(r, t.day);
    c[RTC_MONTH] = encode(r, t.month);
    c[RTC_YEAR] = encode(r, t.year % 100);
    c[RTC_CENTURY] = encode(r, t.year / 100 % 100);
}

/* Takes the time from the clock registers: the guest has set them. Nonsense is normalized, not
 * refused. */
static void take_time(struct rtc *r)
{
    const u8 *c = r->s.cmos;
    struct calendar t = {
        .sec = decode(r, c[RTC_SEC]),
        .min = decode(r, c[RTC_MIN]),
        .hour = decode_hour(r, c[RTC_HOUR]),
        .day = decode(r, c[RTC_DAY]),
        .month = decode(r, c[RTC_MONTH]),
        .year = decode(r, c[RTC_CENTURY]) * 100 + decode(r, c[RTC_YEAR]),
    };

    r->s.offset_s = calendar_to_s(&t) - wall_ns(r) / NS_PER_S;
    r->s.last_s = now_s(r);
}

static void update_irq(struct rtc *r)
{
    u8 *c = r->s.cmos;

    if (c[RTC_B] & c[RTC_C] & C_FLAGS)
        c[RTC_C] |= C_IRQ;
    else
        c[RTC_C] &= (u8)~C_IRQ;
    if (!r->s.disabled)
        irq_set(&r->irq, c[RTC_C] & C_IRQ);
}

static s64 period_ns(const struct rtc *r)
{
    unsigned rate = r->s.cmos[RTC_A] & 15;

    if (rate == 0)
        return 0;
    if (rate < 3)
        rate += 7; /* data sheet, table 5: with a 32 kHz crystal 1 and 2 are 256 and 128 Hz */
    return MAX((s64)(1u << (rate - 1)) * NS_PER_S / HZ, (s64)PERIODIC_MIN_NS);
}

static bool alarm_field(u8 alarm, u8 value)
{
    return (alarm & 0xc0) == 0xc0 || alarm == value;
}

static bool alarm_matches(const struct rtc *r, s64 second)
{
    const u8 *c = r->s.cmos;
    struct calendar t;

    calendar_from_s(second, &t);
    return alarm_field(c[RTC_SEC_ALARM], encode(r, t.sec)) &&
           alarm_field(c[RTC_MIN_ALARM], encode(r, t.min)) &&
           alarm_field(c[RTC_HOUR_ALARM], encode_hour(r, t.hour));
}

/* Raises the flags of all that happened up to now. */
static void catch_up(struct rtc *r)
{
    s64 second = now_s(r), now = timerq_now(r->q), period = period_ns(r), from = r->s.last_s + 1;

    if (period && r->s.next_ns <= now) {
        r->s.cmos[RTC_C] |= B_PERIODIC;
        r->s.next_ns += ((now - r->s.next_ns) / period + 1) * period;
    }
    if (second == r->s.last_s || (r->s.cmos[RTC_B] & B_SET))
        return;
    r->s.cmos[RTC_C] |= B_UPDATE;
    /* alarms repeat daily: looking further back than a day finds nothing new; a clock set back
     * skips them */
    from = MAX(from, second - 86400);
    for (s64 s = from; s <= second; s++) {
        if (alarm_matches(r, s)) {
            r->s.cmos[RTC_C] |= B_ALARM;
            break;
        }
    }
    r->s.last_s = second;
}

static void arm(struct rtc *r)
{
    const u8 *c = r->s.cmos;
    s64 next = TIMER_NEVER;

    if ((c[RTC_B] & B_PERIODIC) && period_ns(r))
        next = r->s.next_ns;
    if ((c[RTC_B] & (B_UPDATE | B_ALARM)) && !(c[RTC_B] & B_SET))
        next = MIN(next, timerq_now(r->q) + NS_PER_S - wall_ns(r) % NS_PER_S);
    if (next == TIMER_NEVER)
        timer_cancel(&r->timer);
    else
        timer_arm(&r->timer, next);
}

static void fire(void *opaque)
{
    struct rtc *r = opaque;

    pthread_mutex_lock(&r->lock);
    catch_up(r);
    update_irq(r);
    arm(r);
    pthread_mutex_unlock(&r->lock);
}

static u8 read_register(struct rtc *r, unsigned index)
{
    u8 *c = r->s.cmos, value;

    switch (index) {
    case RTC_SEC:
    case RTC_MIN:
    case RTC_HOUR:
    case RTC_WEEKDAY ... RTC_YEAR:
    case RTC_CENTURY:
        show_time(r);
        return c[index];
    case RTC_A:
        if (!(c[RTC_B] & B_SET) && wall_ns(r) % NS_PER_S >= NS_PER_S - UPDATE_NS)
            return c[RTC_A] | A_UPDATE;
        return c[RTC_A];
    case RTC_C:
        catch_up(r);
        update_irq(r);
        value = c[RTC_C];
        c[RTC_C] = 0;
        update_irq(r);
        arm(r);
        return value;
    }
    return c[index];
}

static void write_b(struct rtc *r, u8 value)
{
    u8 old = r->s.cmos[RTC_B];

    catch_up(r);
    if (value & B_SET) {
        show_time(r); /* the registers freeze at the current time */
        value &= (u8)~B_UPDATE;
    }
    r->s.cmos[RTC_B] = value;
    if ((old & B_SET) && !(value & B_SET))
        take_time(r);
    update_irq(r);
    arm(r);
}

static void write_register(struct rtc *r, unsigned index, u8 value)
{
    u8 *c = r->s.cmos;

    switch (index) {
    case RTC_SEC:
    case RTC_MIN:
    case RTC_HOUR:
    case RTC_WEEKDAY ... RTC_YEAR:
    case RTC_CENTURY:
        show_time(r);
        c[index] = value;
        if (!(c[RTC_B] & B_SET))
            take_time(r);
        break;
    case RTC_A:
        c[RTC_A] = value & 0x7f;
        r->s.next_ns = period_ns(r) ? timerq_now(r->q) + period_ns(r) : TIMER_NEVER;
        arm(r);
        break;
    case RTC_B:
        write_b(r, value);
        break;
    case RTC_C:
    case RTC_D:
        break;
    default:
        c[index] = value;
    }
}

static u64 rtc_read(void *opaque, u64 offset, unsigned size)
{
    struct rtc *r = opaque;
    u8 value = 0xff; /* the index cannot be read back */

    pthread_mutex_lock(&r->lock);
    if (offset == 1)
        value = read_register(r, r->s.index);
    pthread_mutex_unlock(&r->lock);
    return value;
}

static void rtc_write(void *opaque, u64 offset, unsigned size, u64 value)
{
    struct rtc *r = opaque;

    pthread_mutex_lock(&r->lock);
    if (offset == 0)
        r->s.index = value & (RTC_CMOS - 1);
    else
        write_register(r, r->s.index, (u8)value);
    pthread_mutex_unlock(&r->lock);
}

static const struct io_ops rtc_ops = {.read = rtc_read, .write = rtc_write};

void rtc_init(struct rtc *r, struct timerq *q, struct irq irq)
{
    memset(r, 0, sizeof(*r));
    /* gmtime_r() reads the host's time zone once, from a file that the sandbox will not let it open. */
    tzset();
    pthread_mutex_init(&r->lock, NULL);
    r->q = q;
    r->irq = irq;
    timer_init(&r->timer, q, fire, r);
    r->io = (struct io_region){.name = "rtc", .base = 0x70, .len = 2, .ops = &rtc_ops, .opaque = r};
    r->s.cmos[RTC_A] = 0x26; /* 32 kHz crystal, 1024 Hz */
    r->s.cmos[RTC_B] = B_24H;
    r->s.cmos[RTC_D] = 0x80; /* the battery is good */
    r->s.next_ns = TIMER_NEVER;
    r->s.last_s = now_s(r);
}

void rtc_fini(struct rtc *r)
{
    if (!r->q)
        return;
    timer_cancel(&r->timer);
    pthread_mutex_destroy(&r->lock);
}

void rtc_reset(struct rtc *r)
{
    pthread_mutex_lock(&r->lock);
    r->s.cmos[RTC_B] &= (u8) ~(B_PERIODIC | B_ALARM | B_UPDATE | B_SET);
    r->s.cmos[RTC_C] = 0;
    r->s.index = 0;
    r->s.last_s = now_s(r);
    update_irq(r);
    arm(r);
    pthread_mutex_unlock(&r->lock);
}

int rtc_map(struct rtc *r, struct aspace *pio, struct err *err)
{
    return aspace_map(pio, &r->io, err);
}

static void put16(u8 *c, u64 value)
{
    value = MIN(value, 0xffff);
    c[0] = (u8)value;
    c[1] = (u8)(value >> 8);
}

void rtc_set_memory(struct rtc *r, u64 below_4g, u64 above_4g, unsigned cpus)
{
    u8 *c = r->s.cmos;

    put16(&c[0x15], 640);                                         /* KiB of base memory */
    put16(&c[0x17], below_4g > MiB ? (below_4g - MiB) / KiB : 0); /* KiB above 1 MiB */
    memcpy(&c[0x30], &c[0x17], 2);
    put16(&c[0x34], below_4g > 16 * MiB ? (below_4g - 16 * MiB) / (64 * KiB) : 0);
    put16(&c[0x5b], above_4g / (64 * KiB)); /* 64 KiB units above 4 GiB, 24 bits */
    if (above_4g / (64 * KiB) > 0xffff) {
        put16(&c[0x5b], above_4g / (64 * KiB) & 0xffff);
        c[0x5d] = (u8)(above_4g / (64 * KiB) >> 16);
    }
    c[0x14] = 0x06; /* equipment: coprocessor, pointing device; no floppy */
    c[0x5f] = (u8)(cpus - 1);
}

void rtc_enable_irq(struct rtc *r, bool on)
{
    pthread_mutex_lock(&r->lock);
    if (!on)
        irq_set(&r->irq, false);
    r->s.disabled = !on;
    update_irq(r);
    pthread_mutex_unlock(&r->lock);
}

void rtc_resume(struct rtc *r)
{
    pthread_mutex_lock(&r->lock);
    update_irq(r);
    arm(r);
    pthread_mutex_unlock(&r->lock);
}
