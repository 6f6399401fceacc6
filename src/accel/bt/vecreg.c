/* Access to one vector register by number: a switch over the assembler's names. Light. style: table */
#include "accel/bt/vecreg.h"

#define LOW8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define LOW16(X) LOW8(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)
#define HIGH16(X) X(16) X(17) X(18) X(19) X(20) X(21) X(22) X(23) \
    X(24) X(25) X(26) X(27) X(28) X(29) X(30) X(31)

#define STORE(insn, name, n) \
    case n: __asm__ volatile(insn " %%" name #n ", (%0)" : : "r"(p) : "memory"); break;
#define LOAD(insn, name, n) \
    case n: __asm__ volatile(insn " (%0), %%" name #n : : "r"(p) : "memory"); break;

#define ST_XMM(n) STORE("vmovdqu", "xmm", n)
#define ST_YMM(n) STORE("vmovdqu", "ymm", n)
#define ST_ZMM(n) STORE("vmovdqu64", "zmm", n)
#define ST_XMM_E(n) STORE("vmovdqu64", "xmm", n)
#define ST_YMM_E(n) STORE("vmovdqu64", "ymm", n)
#define ST_SSE(n) STORE("movups", "xmm", n)
#define ST_MMX(n) STORE("movq", "mm", n)
#define LD_XMM(n) LOAD("vmovdqu", "xmm", n)
#define LD_YMM(n) LOAD("vmovdqu", "ymm", n)
#define LD_ZMM(n) LOAD("vmovdqu64", "zmm", n)
#define LD_XMM_E(n) LOAD("vmovdqu64", "xmm", n)
#define LD_YMM_E(n) LOAD("vmovdqu64", "ymm", n)

void vecreg_read(unsigned reg, unsigned bytes, void *p)
{
    if (bytes == 64)
        switch (reg) { LOW16(ST_ZMM) HIGH16(ST_ZMM) }
    else if (bytes == 32)
        switch (reg) { LOW16(ST_YMM) HIGH16(ST_YMM_E) }
    else
        switch (reg) { LOW16(ST_XMM) HIGH16(ST_XMM_E) }
}

void vecreg_write(unsigned reg, unsigned bytes, const void *p)
{
    if (bytes == 64)
        switch (reg) { LOW16(LD_ZMM) HIGH16(LD_ZMM) }
    else if (bytes == 32)
        switch (reg) { LOW16(LD_YMM) HIGH16(LD_YMM_E) }
    else
        switch (reg) { LOW16(LD_XMM) HIGH16(LD_XMM_E) }
}

void vecreg_read_sse(unsigned reg, void *p)
{
    switch (reg) { LOW16(ST_SSE) }
}

void vecreg_read_mmx(unsigned reg, void *p)
{
    switch (reg) { LOW8(ST_MMX) }
}

#define READ_K(n) \
    case n: __asm__ volatile("kmovw %%k" #n ", %k0" : "=r"(value)); break;
#define CLEAR_K(n) \
    case n: __asm__ volatile("kxorw %k" #n ", %k" #n ", %k" #n); break;

u64 vecreg_read_k(unsigned reg)
{
    u64 value = 0;
    switch (reg) { LOW8(READ_K) }
    return value;
}

void vecreg_clear_k(unsigned reg)
{
    switch (reg) { LOW8(CLEAR_K) }
}
