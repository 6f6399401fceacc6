/* Floating point: scalar, SSE2, AVX2 and x87; and SSE2 on integers. */
#include <immintrin.h>

#include "bench.h"

#define SIZE 48

static double a[SIZE][SIZE] __attribute__((aligned(64))),
    b[SIZE][SIZE] __attribute__((aligned(64)));
static double c[SIZE][SIZE] __attribute__((aligned(64)));

static bool gemm_setup(void)
{
    for (int i = 0; i < SIZE; i++)
        for (int j = 0; j < SIZE; j++) {
            a[i][j] = 1.0 / (i + j + 1);
            b[i][j] = (double)(i - j) / SIZE;
        }
    return true;
}

static void gemm_scalar_run(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < SIZE; i++)
            for (int j = 0; j < SIZE; j++) {
                double sum = 0;

                for (int l = 0; l < SIZE; l++)
                    sum += a[i][l] * b[l][j];
                c[i][j] = sum;
            }
        use((uint64_t)c[1]);
    }
}

static void gemm_sse2_run(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < SIZE; i++)
            for (int j = 0; j < SIZE; j += 4) {
                __m128d low = _mm_setzero_pd(), high = _mm_setzero_pd();

                for (int l = 0; l < SIZE; l++) {
                    __m128d f = _mm_set1_pd(a[i][l]);

                    low = _mm_add_pd(low, _mm_mul_pd(f, _mm_load_pd(&b[l][j])));
                    high = _mm_add_pd(high, _mm_mul_pd(f, _mm_load_pd(&b[l][j + 2])));
                }
                _mm_store_pd(&c[i][j], low);
                _mm_store_pd(&c[i][j + 2], high);
            }
        use((uint64_t)c[1]);
    }
}

static bool avx2_setup(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && gemm_setup();
}

static __attribute__((target("avx2,fma"))) void gemm_avx2_run(uint64_t n)
{
    for (uint64_t k = 0; k < n; k++) {
        for (int i = 0; i < SIZE; i++)
            for (int j = 0; j < SIZE; j += 8) {
                __m256d low = _mm256_setzero_pd(), high = _mm256_setzero_pd();

                for (int l = 0; l < SIZE; l++) {
                    __m256d f = _mm256_set1_pd(a[i][l]);

                    low = _mm256_fmadd_pd(f, _mm256_load_pd(&b[l][j]), low);
                    high = _mm256_fmadd_pd(f, _mm256_load_pd(&b[l][j + 4]), high);
                }
                _mm256_store_pd(&c[i][j], low);
                _mm256_store_pd(&c[i][j + 4], high);
            }
        use((uint64_t)c[1]);
    }
}

/* Saturating sums and differences over 4 KiB of bytes. */
static void sse2_int_run(uint64_t n)
{
    static uint8_t x[4096] __attribute__((aligned(16))), y[4096] __attribute__((aligned(16)));

    for (uint64_t k = 0; k < n; k++) {
        __m128i sum = _mm_setzero_si128();

        for (int i = 0; i < 4096; i += 16) {
            __m128i u = _mm_load_si128((__m128i *)(x + i)), v = _mm_load_si128((__m128i *)(y + i));

            sum = _mm_add_epi32(sum, _mm_sad_epu8(u, v));
            u = _mm_xor_si128(_mm_adds_epu8(u, v), _mm_slli_epi16(v, 1));
            _mm_store_si128((__m128i *)(x + i), u);
        }
        use((uint64_t)_mm_cvtsi128_si64(sum));
    }
}

static void x87_run(uint64_t n)
{
    long double v = 1.5L, f = 1.0000001L, g = 0.25L;

    for (uint64_t k = 0; k < n; k++)
        v = (v * f + g) / f;
    use((uint64_t)v);
}

static void fsin_run(uint64_t n)
{
    long double v = 0.5L;

    for (uint64_t k = 0; k < n; k++)
        asm volatile("fsin" : "+t"(v));
    use((uint64_t)v);
}

const struct row float_rows[] = {
    {"gemm48_scalar", "float", gemm_scalar_run, gemm_setup, 0},
    {"gemm48_sse2", "float", gemm_sse2_run, gemm_setup, 0},
    {"gemm48_avx2", "float", gemm_avx2_run, avx2_setup, 0},
    {"sse2_int_4k", "float", sse2_int_run, NULL, 0},
    {"x87", "float", x87_run, NULL, 0},
    {"fsin", "other", fsin_run, NULL, 0},
    {NULL, NULL, NULL, NULL, 0},
};
