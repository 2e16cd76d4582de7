/* Vectors as GCC and Clang have them, as wide as the processor's; what every kernel here is made of.
 *
 * Written out, because what a compiler makes of a plain loop changes with its version and with the processor: the same
 * attention was 20 times slower on AVX2 than on AVX-512.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#ifdef __AVX512F__
#define WIDTH 16
#else
#define WIDTH 8
#endif
#define INLINE static inline __attribute__((always_inline))

typedef float vec __attribute__((vector_size(WIDTH * 4)));
typedef float unaligned __attribute__((vector_size(WIDTH * 4), aligned(4), may_alias));
typedef int32_t ivec __attribute__((vector_size(WIDTH * 4)));
typedef uint32_t uvec __attribute__((vector_size(WIDTH * 4)));

#if WIDTH == 16
static const ivec COUNT = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const ivec COUNT = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

INLINE int64_t round_up(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }
INLINE vec load(const float *from) { return *(const unaligned *)from; }
INLINE void store(float *to, vec x) { *(unaligned *)to = x; }
INLINE vec all(float x) { return x + (vec){0}; }
INLINE vec choose(ivec where, vec yes, vec no) { return (vec)(((ivec)yes & where) | ((ivec)no & ~where)); }
INLINE vec where(ivec mask, vec x) { return (vec)((ivec)x & mask); }
INLINE vec larger(vec x, vec y) { return choose(x > y, x, y); }

/* The first `count` of a vector's numbers, the others 0; for what is left at a row's end. */
INLINE vec load_some(const float *from, int64_t count) {
    float all_of_them[WIDTH] = {0};
    memcpy(all_of_them, from, count * sizeof(float));
    return load(all_of_them);
}
INLINE void store_some(float *to, vec x, int64_t count) {
    float all_of_them[WIDTH];
    store(all_of_them, x);
    memcpy(to, all_of_them, count * sizeof(float));
}

/* Of a vector's numbers. In a plain loop each step would wait for the one before. */
#if WIDTH == 16
INLINE float sum_of(vec x) { return _mm512_reduce_add_ps((__m512)x); }
INLINE float largest_of(vec x) { return _mm512_reduce_max_ps((__m512)x); }
#elif defined(__AVX__)
#define REDUCE(name, of)                                                                      \
    INLINE float name(vec x) {                                                                \
        __m128 y = of(_mm256_castps256_ps128((__m256)x), _mm256_extractf128_ps((__m256)x, 1)); \
        y = of(y, _mm_movehl_ps(y, y));                                                       \
        return _mm_cvtss_f32(of(y, _mm_shuffle_ps(y, y, 1)));                                 \
    }
REDUCE(sum_of, _mm_add_ps)
REDUCE(largest_of, _mm_max_ps)
#else
INLINE float sum_of(vec x) {
    float total = 0;
    for (int u = 0; u < WIDTH; u++) total += x[u];
    return total;
}
INLINE float largest_of(vec x) {
    float top = x[0];
    for (int u = 1; u < WIDTH; u++) top = x[u] > top ? x[u] : top;
    return top;
}
#endif
INLINE float dot(const float *x, const float *y, int64_t count) {
    vec sum = {0};
    int64_t j = 0;
    for (; j + WIDTH <= count; j += WIDTH) sum += load(x + j) * load(y + j);
    float total = sum_of(sum);
    for (; j < count; j++) total += x[j] * y[j];
    return total;
}

/* e^x to 2 ulp for -87 <= x <= 88, exactly 0 below, e^88 above: range reduction by ln 2, polynomial of Cephes' expf. */
INLINE vec exponential(vec x) {
    const float round = 12582912.0f; /* 1.5 * 2^23: what is added to it loses its fraction */
    ivec counts = x >= -87.0f;
    x = choose(x < 88.0f, x, all(88.0f));
    vec shifted = x * 1.44269504088896341f + round, whole = shifted - round;
    ivec n = (ivec)shifted - (ivec)all(round);
    vec f = x - whole * 0.693359375f + whole * 2.12194440e-4f;
    vec p = f * 1.9875691500e-4f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    return where(counts, p * (vec)((n + 127) << 23));
}

/* Dropout's random numbers: each is a keyed hash of the element's index, so that forward and backward agree without
 * keeping a mask, whatever the threads. Three rounds of a 32-bit mixer (triple32 of C. Wellons, "hash-prospector",
 * 2018), half of the key before the first and half before the second: a bit of either then reaches every bit of the
 * result, which two rounds do not give. engine/fast/dropout.py has the same in NumPy. */
typedef struct {
    uint32_t first, second; /* the key */
    uint32_t threshold;     /* numbers below it are dropped */
    float boost;            /* what stays is multiplied by it */
    int32_t on;
} Dropout;

INLINE ivec stays(const Dropout *d, uint32_t index) {
    uvec x = (uvec)COUNT + (index + d->first);
    x ^= x >> 17;
    x *= 0xed5ad4bbu;
    x += d->second;
    x ^= x >> 11;
    x *= 0xac4c1b51u;
    x ^= x >> 15;
    x *= 0x31848babu;
    x ^= x >> 14;
    return (ivec)(x >= d->threshold);
}
INLINE vec drop_out(const Dropout *d, uint32_t index, vec x) { return where(stays(d, index), x * d->boost); }
