/* Dropout, and LoRA's thin products with dropout inside, so that neither masks nor dropped copies go through memory. */
#include "vector.h"

#define RANKS 8 /* sums that stay in registers */
#define TILE 192 /* columns whose sums stay in the nearest cache */
#define BLOCK_ROWS 4

/* out = dropout(x); forward and, on the gradient, backward. */
void drop(int64_t count, const float *x, const Dropout *d, float *out, int64_t threads) {
    int64_t whole = count / WIDTH * WIDTH;
#pragma omp parallel for num_threads(threads) if (count > 8192) schedule(static)
    for (int64_t i = 0; i < whole; i += WIDTH) store(out + i, drop_out(d, (uint32_t)i, load(x + i)));
    if (whole < count)
        store_some(out + whole, drop_out(d, (uint32_t)whole, load_some(x + whole, count - whole)), count - whole);
}

INLINE vec input_at(const float *x, int64_t j, int64_t width, const Dropout *d, uint32_t index) {
    vec here = j + WIDTH <= width ? load(x + j) : load_some(x + j, width - j);
    return d->on ? drop_out(d, index + (uint32_t)j, here) : here;
}

INLINE void thin_row(const int ranks, int64_t width, const float *x, const float *a, const Dropout *d, uint32_t index,
                     float *thin) {
    vec sum[RANKS];
    for (int r = 0; r < ranks; r++) sum[r] = (vec){0};
    int64_t j = 0;
    for (; j + WIDTH <= width; j += WIDTH) {
        vec here = input_at(x, j, width, d, index);
        for (int r = 0; r < ranks; r++) sum[r] += here * load(a + r * width + j);
    }
    if (j < width) {
        vec here = input_at(x, j, width, d, index);
        for (int r = 0; r < ranks; r++) sum[r] += here * load_some(a + r * width + j, width - j);
    }
    for (int r = 0; r < ranks; r++) thin[r] = sum_of(sum[r]);
}

/* thin (rows, ranks) = dropout(x) (rows, width) a' with a (ranks, width); all dense. */
void lora_forward(int64_t rows, int64_t width, int64_t ranks, const float *x, const float *a, const Dropout *d,
                  float *thin, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        uint32_t index = (uint32_t)(i * width);
        int64_t r = 0;
        for (; r + RANKS <= ranks; r += RANKS)
            thin_row(RANKS, width, x + i * width, a + r * width, d, index, thin + i * ranks + r);
        for (; r < ranks; r++) thin_row(1, width, x + i * width, a + r * width, d, index, thin + i * ranks + r);
    }
}

/* Columns [left, right) of n rows; both n and whether the states have a gradient are constants where it is inlined. */
INLINE void backward_rows(const int n, const int with_states, int64_t i, int64_t left, int64_t right, int64_t width,
                          int64_t ranks, const float *x, const float *a, const Dropout *d, const float *d_thin,
                          float *d_a, float *d_x) {
    for (int64_t j = left; j < right; j += WIDTH) {
        int64_t some = right - j < WIDTH ? right - j : WIDTH;
        ivec stay[BLOCK_ROWS];
        vec here[BLOCK_ROWS], back[BLOCK_ROWS];
        for (int u = 0; u < n; u++) {
            int64_t at = (i + u) * width + j;
            stay[u] = d->on ? stays(d, (uint32_t)at) : ~(ivec){0};
            here[u] = where(stay[u], (some == WIDTH ? load(x + at) : load_some(x + at, some)) * d->boost);
            back[u] = (vec){0};
        }
        for (int64_t r = 0; r < ranks; r++) {
            float *sum = d_a + r * width + j;
            vec total = some == WIDTH ? load(sum) : load_some(sum, some), across = {0};
            if (with_states) across = some == WIDTH ? load(a + r * width + j) : load_some(a + r * width + j, some);
            for (int u = 0; u < n; u++) {
                float slope = d_thin[(i + u) * ranks + r];
                total += slope * here[u];
                if (with_states) back[u] += slope * across;
            }
            some == WIDTH ? store(sum, total) : store_some(sum, total, some);
        }
        for (int u = 0; with_states && u < n; u++) {
            float *to = d_x + (i + u) * width + j;
            vec gain = where(stay[u], back[u] * d->boost);
            some == WIDTH ? store(to, load(to) + gain) : store_some(to, load_some(to, some) + gain, some);
        }
    }
}

/* d_a (ranks, width) is d_thin' dropout(x); d_x (rows, width), where not null, gains dropout(d_thin a).
 * Each thread has columns of its own, so that no sum is shared. */
static void thin_backward(int64_t rows, int64_t width, int64_t ranks, const float *x, const float *a, const Dropout *d,
                          const float *d_thin, float *d_a, float *d_x, int64_t threads) {
    memset(d_a, 0, ranks * width * sizeof(float));
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t left = 0; left < width; left += TILE) {
        int64_t right = left + TILE < width ? left + TILE : width, i = 0;
#define ROWS_OF(n, with_states) \
    backward_rows(n, with_states, i, left, right, width, ranks, x, a, d, d_thin, d_a, d_x)
        for (; i + BLOCK_ROWS <= rows; i += BLOCK_ROWS) d_x ? ROWS_OF(BLOCK_ROWS, 1) : ROWS_OF(BLOCK_ROWS, 0);
        for (; i < rows; i++) d_x ? ROWS_OF(1, 1) : ROWS_OF(1, 0);
    }
}

/* Gradients of y = ... + scale dropout(x) a' b', thin (rows, ranks) being dropout(x) a' and d (rows, up) that of y: d_a
 * (ranks, width), d_b (up, ranks), and d_x (rows, width), where not null, gains what comes this way. 0 if it worked. */
int lora_backward(int64_t rows, int64_t width, int64_t up, int64_t ranks, const float *x, const float *thin,
                  const float *a, const float *b, float scale, const Dropout *dropout, const float *d, float *d_a,
                  float *d_b, float *d_x, int64_t threads) {
    const Dropout none = {.boost = 1};
    float *across = malloc((2 * ranks * up + rows * ranks) * sizeof(float));
    if (!across) return -1;
    float *d_across = across + ranks * up, *d_thin = d_across + ranks * up;
    for (int64_t r = 0; r < ranks; r++)
        for (int64_t j = 0; j < up; j++) across[r * up + j] = b[j * ranks + r];
    /* The same thin products, seen from the result. */
    lora_forward(rows, up, ranks, d, across, &none, d_thin, threads);
    for (int64_t i = 0; i < rows * ranks; i++) d_thin[i] *= scale;
    thin_backward(rows, up, ranks, d, across, &none, thin, d_across, NULL, threads);
    for (int64_t j = 0; j < up; j++)
        for (int64_t r = 0; r < ranks; r++) d_b[j * ranks + r] = scale * d_across[r * up + j];
    thin_backward(rows, width, ranks, x, a, dropout, d_thin, d_a, d_x, threads);
    free(across);
    return 0;
}
