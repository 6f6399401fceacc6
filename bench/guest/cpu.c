/* Integer work and branches: what compilers and interpreters do all day. */
#include <string.h>

#include "bench.h"

#define NODES 256
#define MATRIX 24
#define INTERP_OPS 16

/* --- a linked list: search for a value, then reverse --- */
struct node {
    struct node *next;
    uint32_t key;
};

static struct node nodes[NODES], *head;

static bool list_setup(void)
{
    for (unsigned i = 0; i < NODES; i++) {
        unsigned at = i * 97 % NODES;

        nodes[at].key = i;
        nodes[at].next = head;
        head = &nodes[at];
    }
    return true;
}

static void list_run(uint64_t n)
{
    for (uint64_t i = 0; i < n; i++) {
        struct node *found = head, *reversed = NULL;

        while (found->next && found->key != NODES)
            found = found->next;
        use(found->key);
        while (head) {
            struct node *next = head->next;

            head->next = reversed;
            reversed = head;
            head = next;
        }
        head = reversed;
    }
}

/* --- a product of small matrices of 16-bit numbers --- */
static int16_t ma[MATRIX][MATRIX], mb[MATRIX][MATRIX];
static int32_t mc[MATRIX][MATRIX];

static void matrix_run(uint64_t n)
{
    for (int i = 0; i < MATRIX; i++)
        for (int j = 0; j < MATRIX; j++) {
            ma[i][j] = (int16_t)(i + j);
            mb[i][j] = (int16_t)(i * 3 - j);
        }
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < MATRIX; i++)
            for (int j = 0; j < MATRIX; j++) {
                int32_t sum = 0;

                for (int l = 0; l < MATRIX; l++)
                    sum += ma[i][l] * mb[l][j];
                mc[i][j] = sum;
            }
        use((uint64_t)mc[3][4]);
    }
}

/* --- a state machine that sorts words of a text into integers, decimals and others --- */
enum state { START, INTEGER, DECIMAL, WORD };

static const char text[] = "12 abc 3.14 x9 77 -5 8.0.1 foo 42 bar 1e9 0x10 99.5 zz 7 q 12 45 ";

static void state_run(uint64_t n)
{
    static unsigned counts[4];

    for (uint64_t k = 0; k < n; k++) {
        enum state s = START;

        for (unsigned i = 0; i < 64; i++) {
            char c = text[i];

            if (c == ' ') {
                counts[s]++;
                s = START;
                continue;
            }
            switch (s) {
            case START:
                s = c >= '0' && c <= '9' ? INTEGER : WORD;
                break;
            case INTEGER:
                s = c == '.' ? DECIMAL : c >= '0' && c <= '9' ? INTEGER : WORD;
                break;
            case DECIMAL:
                s = c >= '0' && c <= '9' ? DECIMAL : WORD;
                break;
            case WORD:
                break;
            }
        }
        use(counts[INTEGER]);
    }
}

/* --- a checksum, bit by bit --- */
static void crc16_run(uint64_t n)
{
    uint16_t crc = 0xffff;

    for (uint64_t k = 0; k < n; k++)
        for (unsigned i = 0; i < 64; i++) {
            crc ^= (uint8_t)text[i];
            for (int bit = 0; bit < 8; bit++)
                crc = crc & 1 ? (uint16_t)(crc >> 1 ^ 0xa001) : (uint16_t)(crc >> 1);
        }
    use(crc);
}

/* --- one block of SHA-256 (FIPS 180-4, 6.2.2) --- */
static const uint32_t sha_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t x, unsigned by)
{
    return x >> by | x << (32 - by);
}

static void sha_schedule(uint32_t w[64], const uint8_t block[64])
{
    for (int i = 0; i < 16; i++) {
        uint32_t v;

        memcpy(&v, block + 4 * i, 4);
        w[i] = __builtin_bswap32(v);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;

        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
}

void bench_sha256_block(uint32_t state[8], const uint8_t block[64])
{
    uint32_t w[64], v[8];

    sha_schedule(w, block);
    memcpy(v, state, sizeof(v));
    for (int i = 0; i < 64; i++) {
        uint32_t s1 = rotate(v[4], 6) ^ rotate(v[4], 11) ^ rotate(v[4], 25);
        uint32_t t1 = v[7] + s1 + ((v[4] & v[5]) ^ (~v[4] & v[6])) + sha_k[i] + w[i];
        uint32_t s0 = rotate(v[0], 2) ^ rotate(v[0], 13) ^ rotate(v[0], 22);
        uint32_t t2 = s0 + ((v[0] & v[1]) ^ (v[0] & v[2]) ^ (v[1] & v[2]));

        memmove(v + 1, v, 7 * sizeof(v[0]));
        v[4] += t1;
        v[0] = t1 + t2;
    }
    for (int i = 0; i < 8; i++)
        state[i] += v[i];
}

static void sha256_run(uint64_t n)
{
    uint32_t state[8] = {1, 2, 3, 4, 5, 6, 7, 8};

    for (uint64_t k = 0; k < n; k++)
        bench_sha256_block(state, (const uint8_t *)text);
    use(state[0]);
}

/* --- calls and returns --- */
static __attribute__((noinline)) unsigned fib(unsigned n)
{
    if (n < 2)
        return n;
    n = fib(n - 1) + fib(n - 2);
    asm volatile("" : "+r"(n)); /* no turning one call into a loop */
    return n;
}

static void fib_run(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++)
        use(fib((unsigned)hide(20)));
}

/* --- an interpreter with computed goto; one operation is one bytecode --- */
static void interp_run(uint64_t n)
{
    enum { ADD, SUB, XOR, SHIFT, LOAD, STORE, LOOP };
    static const uint8_t program[INTERP_OPS] = {ADD,  XOR, LOAD,  SHIFT, ADD, STORE, SUB, XOR,
                                                LOAD, ADD, SHIFT, STORE, ADD, SUB,   XOR, LOOP};
    static void *const labels[] = {&&add, &&sub, &&xor_, &&shift, &&load, &&store, &&loop};
    const uint8_t *pc = program;
    uint64_t acc = 1, memory[4] = {3, 5, 7, 9}, left = n / INTERP_OPS;

#define NEXT goto *labels[*pc++]
    NEXT;
add:
    acc += 7;
    NEXT;
sub:
    acc -= 3;
    NEXT;
xor_:
    acc ^= 0x55;
    NEXT;
shift:
    acc = acc << 1 | acc >> 63;
    NEXT;
load:
    acc += memory[acc & 3];
    NEXT;
store:
    memory[acc & 3] = acc;
    NEXT;
loop:
    pc = program;
    if (--left)
        NEXT;
    use(acc);
#undef NEXT
}

/* --- calls through pointers, to one of eight in no simple order --- */
#define TARGET(i)                                                   \
    static __attribute__((noinline)) uint64_t target##i(uint64_t v) \
    {                                                               \
        return v * (2 * (i) + 3) + (i);                             \
    }
TARGET(0)
TARGET(1)
TARGET(2)
TARGET(3) TARGET(4) TARGET(5) TARGET(6) TARGET(7)

    static void icall_run(uint64_t n)
{
    static uint64_t (*const volatile targets[8])(uint64_t) = {target0, target1, target2, target3,
                                                              target4, target5, target6, target7};
    uint64_t v = 1;

    for (uint64_t k = 0; k < n; k++)
        v = targets[k * 5 & 7](v);
    use(v);
}

const struct row cpu_rows[] = {
    {"list", "int", list_run, list_setup, 0},
    {"matrix", "int", matrix_run, NULL, 0},
    {"state", "int", state_run, NULL, 0},
    {"crc16", "int", crc16_run, NULL, 0},
    {"sha256", "int", sha256_run, NULL, 0},
    {"fib20", "int", fib_run, NULL, 0},
    {"interp", "int", interp_run, NULL, INTERP_OPS},
    {"icall", "int", icall_run, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};
