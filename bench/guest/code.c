/* Code that changes: what a JIT does to whoever translates it again. */
#include <string.h>
#include <sys/mman.h>

#include "bench.h"

#define ARENA (1u << 20)
#define INSNS 60
#define INSN_BYTES 5 /* add $imm32, %eax */
#define FUNCTION_BYTES 320

static uint8_t *arena;

static bool code_setup(void)
{
    if (!arena) {
        arena = mmap(NULL, ARENA, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
                     -1, 0);
        if (arena == MAP_FAILED)
            arena = NULL;
    }
    return arena != NULL;
}

/* xor %eax, %eax comes with the caller's 0 in eax; 60 additions and a return are 61 instructions. */
static void emit(uint8_t *at, uint32_t seed)
{
    for (unsigned i = 0; i < INSNS; i++, at += INSN_BYTES) {
        uint32_t imm = seed + i;

        at[0] = 0x05;
        memcpy(at + 1, &imm, 4);
    }
    *at = 0xc3;
}

static uint32_t call(const uint8_t *code)
{
    uint32_t v = 0;

    asm volatile("call *%1" : "+a"(v) : "r"(code) : "memory", "cc");
    return v;
}

static void smc_run(uint64_t n)
{
    emit(arena, 1);
    for (uint64_t i = 0; i < n; i++) {
        uint32_t imm = (uint32_t)i;

        memcpy(arena + 30 * INSN_BYTES + 1, &imm, 4);
        use(call(arena));
    }
}

static void jit_run(uint64_t n)
{
    static uint32_t at;

    for (uint64_t i = 0; i < n; i++) {
        emit(arena + at, (uint32_t)i);
        use(call(arena + at));
        at = at + 2 * FUNCTION_BYTES < ARENA ? at + FUNCTION_BYTES : 0;
    }
}

static void mixed_run(uint64_t n)
{
    emit(arena, 1);
    for (uint64_t i = 0; i < n; i++) {
        *(volatile uint64_t *)(arena + 2048) = i;
        use(call(arena));
    }
}

const struct row code_rows[] = {
    {"smc_rewrite", "code", smc_run, code_setup, 0},
    {"jit_emit", "code", jit_run, code_setup, 0},
    {"data_on_code", "code", mixed_run, code_setup, 0},
    {NULL, NULL, NULL, NULL, 0},
};
