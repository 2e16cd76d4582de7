/* Matrix products of numbers rounded to bf16, summed in fp32, with what a linear layer adds to them. */
#include "vector.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)

typedef uint16_t half; /* bf16 */

#define STEP 32   /* numbers of bf16 in a vector; what is multiplied is filled up with zeros to a multiple */
#define COLUMNS 3 /* vectors of sums beside each other */
#define PANEL (COLUMNS * WIDTH)
#define TILE 8    /* and below each other: 24 sums, 3 of W and 1 of x are in registers */
#define EACH _Pragma("GCC unroll 8") /* or the sums would not stay there */

/* One side of a product: fp32 or bf16, by strides. */
typedef struct {
    const void *at;
    int64_t row, column;
    int64_t is_half;
} Side;

INLINE __mmask16 first(int64_t count) {
    return count >= WIDTH ? (__mmask16)0xffff : count <= 0 ? (__mmask16)0 : (__mmask16)((1u << count) - 1);
}
/* STEP numbers that lie end to end, of which `count` are there. */
INLINE __m512i rounded(const Side *s, int64_t index, int64_t count) {
    if (s->is_half) {
        __mmask32 here = count >= STEP ? 0xffffffffu : count <= 0 ? 0 : (1u << count) - 1;
        return _mm512_maskz_loadu_epi16(here, (const half *)s->at + index);
    }
    const float *from = (const float *)s->at + index;
    __m512 low = _mm512_maskz_loadu_ps(first(count), from);
    __m512 high = _mm512_maskz_loadu_ps(first(count - WIDTH), from + WIDTH);
    return (__m512i)_mm512_cvtne2ps_pbh(high, low);
}

/* 16 rows of 16 pairs to 16 pairs of each row. */
INLINE void transpose(__m512i r[16]) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int u = 0; u < 2; u++) {
            r[i + 2 * u] = _mm512_unpacklo_epi64(t[i + u], t[i + 2 + u]);
            r[i + 2 * u + 1] = _mm512_unpackhi_epi64(t[i + u], t[i + 2 + u]);
        }
    for (int i = 0; i < 16; i += 8)
        for (int u = 0; u < 4; u++) {
            t[i + u] = _mm512_shuffle_i32x4(r[i + u], r[i + 4 + u], 0x88);
            t[i + 4 + u] = _mm512_shuffle_i32x4(r[i + u], r[i + 4 + u], 0xdd);
        }
    for (int u = 0; u < 8; u++) {
        r[u] = _mm512_shuffle_i32x4(t[u], t[8 + u], 0x88);
        r[8 + u] = _mm512_shuffle_i32x4(t[u], t[8 + u], 0xdd);
    }
}

/* Columns from `left` on of W (depth, width) to (depth / 2, PANEL, 2): what is summed lies side by side. */
static void pack(const Side *w, int64_t depth, int64_t up, int64_t width, int64_t left, half *panel) {
    const __m512i pairs = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6,
                                           21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int c = 0; c < COLUMNS; c++) {
        int64_t j = left + c * WIDTH, some = width - j;
        half *to = panel + c * STEP;
        if (w->column == 1)
            for (int64_t k = 0; k < up; k += 2, to += PANEL * 2) {
                int64_t at = k * w->row + j;
                __m512i both;
                if (w->is_half) {
                    const half *from = (const half *)w->at + at;
                    __mmask16 here = first(k < depth ? some : 0), next = first(k + 1 < depth ? some : 0);
                    both = _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_maskz_loadu_epi16(here, from)),
                                              _mm256_maskz_loadu_epi16(next, from + w->row), 1);
                } else {
                    const float *from = (const float *)w->at + at;
                    __m512 here = _mm512_maskz_loadu_ps(first(k < depth ? some : 0), from);
                    __m512 next = _mm512_maskz_loadu_ps(first(k + 1 < depth ? some : 0), from + w->row);
                    both = (__m512i)_mm512_cvtne2ps_pbh(next, here);
                }
                _mm512_store_si512(to, _mm512_permutexvar_epi16(pairs, both));
            }
        else
            for (int64_t k = 0; k < up; k += STEP, to += STEP * PANEL) {
                __m512i rows[16];
                for (int i = 0; i < 16; i++) rows[i] = rounded(w, (j + i) * w->column + k, i < some ? depth - k : 0);
                transpose(rows);
                for (int i = 0; i < 16; i++) _mm512_store_si512(to + i * PANEL * 2, rows[i]);
            }
    }
}

/* Bring a part of those columns near: weights come from main memory, which takes as long as it takes to multiply. */
INLINE void fetch(const Side *w, int64_t depth, int64_t width, int64_t left, int64_t part, int64_t parts) {
    int64_t size = w->is_half ? sizeof(half) : sizeof(float), columns = width - left < PANEL ? width - left : PANEL;
    int64_t lines = w->column == 1 ? depth : columns, length = (w->column == 1 ? columns : depth) * size;
    const char *from = (const char *)w->at + left * w->column * size;
    for (int64_t i = part * lines / parts; i < (part + 1) * lines / parts; i++) {
        const char *line = from + i * (w->column == 1 ? w->row : w->column) * size;
        for (int64_t at = 0; at < length; at += 64) __builtin_prefetch(line + at, 0, 2);
    }
}

/* What is added to a product: a bias (width), and a thin product (rows, ranks) times b (ranks, width). */
typedef struct {
    const float *bias, *thin, *b;
    int64_t ranks;
} Added;

/* n rows of sums, a constant where this is inlined. */
INLINE void tile(const int n, int64_t up, const half *x, const half *panel, int64_t i, int64_t left, int64_t width,
                 const Added *more, float *out) {
    __m512 sum[TILE][COLUMNS];
    EACH for (int c = 0; c < COLUMNS; c++) {
        __m512 start = _mm512_setzero_ps();
        if (more->bias) start = _mm512_maskz_loadu_ps(first(width - left - c * WIDTH), more->bias + left + c * WIDTH);
        EACH for (int u = 0; u < n; u++) sum[u][c] = start;
    }
    for (int64_t r = 0; r < more->ranks; r++) {
        __m512 w[COLUMNS];
        for (int c = 0; c < COLUMNS; c++)
            w[c] = _mm512_maskz_loadu_ps(first(width - left - c * WIDTH), more->b + r * width + left + c * WIDTH);
        EACH for (int u = 0; u < n; u++) {
            __m512 by = _mm512_set1_ps(more->thin[(i + u) * more->ranks + r]);
            for (int c = 0; c < COLUMNS; c++) sum[u][c] = _mm512_fmadd_ps(by, w[c], sum[u][c]);
        }
    }
    const int32_t *pairs = (const int32_t *)x;
    for (int64_t k = 0; k < up / 2; k++) {
        __m512bh w[COLUMNS];
        for (int c = 0; c < COLUMNS; c++) w[c] = (__m512bh)_mm512_load_si512(panel + (k * COLUMNS + c) * STEP);
        for (int u = 0; u < n; u++) {
            __m512bh by = (__m512bh)_mm512_set1_epi32(pairs[u * (up / 2) + k]);
            for (int c = 0; c < COLUMNS; c++) sum[u][c] = _mm512_dpbf16_ps(sum[u][c], by, w[c]);
        }
    }
    EACH for (int u = 0; u < n; u++) EACH for (int c = 0; c < COLUMNS; c++)
        _mm512_mask_storeu_ps(out + (i + u) * width + left + c * WIDTH, first(width - left - c * WIDTH), sum[u][c]);
}

#define MOST 512 /* rows at a time: more leave the near cache, and their sums the addresses that are at hand */

#define TAKE(part)                  \
    _Pragma("omp atomic capture") { \
        part = taken;               \
        taken++;                    \
    }

int64_t multiplies_bf16(void) { return 1; }

/* out (rows, width) = x (rows, depth) w (depth, width) + what is added; all but w dense, of which one stride is 1.
 * Each thread takes columns of its own, so that no sum is shared. Not 0: no memory. */
int product_in_bf16(int64_t rows, int64_t depth, int64_t width, const float *x, const void *w, int64_t w_row,
                    int64_t w_column, int64_t w_is_half, const float *bias, int64_t ranks, const float *thin,
                    const float *b, float *out, int64_t threads) {
    int64_t up = (depth + STEP - 1) / STEP * STEP;
    const Side states = {x, depth, 1, 0}, weight = {w, w_row, w_column, w_is_half};
    const Added more = {bias, thin, b, ranks};
    half *rounded_x = aligned_alloc(64, (rows * up + STEP) * sizeof(half)); /* of no rows, too, it is no null */
    int failed = !rounded_x;
    int64_t panels = (width + PANEL - 1) / PANEL, blocks = rows ? (rows + MOST - 1) / MOST : 1;
    int64_t block = ((rows + blocks - 1) / blocks + TILE - 1) / TILE * TILE, parts = panels * blocks;
    int64_t taken = 0; /* parts, one block of rows after the other, that some thread has, or will have next */
#pragma omp parallel num_threads(threads)
    {
        half *panel = aligned_alloc(64, up * PANEL * sizeof(half));
        if (!panel)
#pragma omp atomic write
            failed = 1;
#pragma omp barrier
        if (!failed) {
            int64_t part, next;
            TAKE(part);
            if (part < parts) fetch(&weight, depth, width, part % panels * PANEL, 0, 1);
#pragma omp for schedule(static)
            for (int64_t i = 0; i < rows; i++)
                for (int64_t k = 0; k < up; k += STEP)
                    _mm512_store_si512(rounded_x + i * up + k, rounded(&states, i * depth + k, depth - k));
            for (; part < parts; part = next) {
                TAKE(next);
                int64_t left = part % panels * PANEL, begin = part / panels * block, i = begin;
                int64_t end = begin + block < rows ? begin + block : rows;
                pack(&weight, depth, up, width, left, panel);
#define ROWS_OF(n) tile(n, up, rounded_x + i * up, panel, i, left, width, &more, out)
                for (; i + TILE <= end; i += TILE) {
                    int64_t done = (i - begin) / TILE, all = (end - begin) / TILE;
                    if (next < parts) fetch(&weight, depth, width, next % panels * PANEL, done, all);
                    ROWS_OF(TILE);
                }
                for (; i + 3 <= end; i += 3) ROWS_OF(3);
                for (; i < end; i++) ROWS_OF(1);
            }
        }
        free(panel);
    }
    free(rounded_x);
    return failed;
}

#else

int64_t multiplies_bf16(void) { return 0; }
int product_in_bf16(int64_t rows, int64_t depth, int64_t width, const float *x, const void *w, int64_t w_row,
                    int64_t w_column, int64_t w_is_half, const float *bias, int64_t ranks, const float *thin,
                    const float *b, float *out, int64_t threads) {
    return -1;
}

#endif
