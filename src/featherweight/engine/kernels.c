/* Attention over texts that lie end to end, and dropout, for processors. Plain C and OpenMP; see kernels.py.
 *
 * Texts are short and many, so one task is one head of one text: its scores fit the cache, and products are made by a
 * small register-blocked kernel. Nothing of size (length x length) is kept for the backward pass but the dropout lanes:
 * weights are recomputed from the logarithm of their sum, as in FlashAttention-2 (Dao, 2023).
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Columns are padded to WIDTH. ROWS x WIDE sums stay in registers: 8 of the 32 (AVX-512) or 16 (others) there are. */
#define WIDTH 16
#define ROWS 4
#ifdef __AVX512F__
#define WIDE 32
#else
#define WIDE 16
#endif
static int64_t round_up(int64_t n) { return (n + WIDTH - 1) / WIDTH * WIDTH; }

/* e^x for -87 <= x <= 0, to 2 ulp: range reduction by ln 2 and the polynomial of Cephes' expf. */
static inline float exp_negative(float x) {
    float n = (float)(int32_t)(x * 1.44269504088896341f - 0.5f);
    float f = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * f + 1.3981999507e-3f;
    p = p * f + 8.3334519073e-3f;
    p = p * f + 4.1665795894e-2f;
    p = p * f + 1.6666665459e-1f;
    p = p * f + 5.0000001201e-1f;
    p = p * f * f + f + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* x = e^(x * scale - shift), which is at most 1. Two loops, because a compiler gives up on a bound within the second. */
static void exponentials(float *x, int64_t count, float scale, float shift) {
    for (int64_t j = 0; j < count; j++) {
        float y = x[j] * scale - shift;
        x[j] = y < -87.0f ? -87.0f : y;
    }
    for (int64_t j = 0; j < count; j++) x[j] = exp_negative(x[j]);
}

/* The largest of some numbers; kept in WIDTH parts, which a compiler may not do by itself. */
static float largest(const float *x, int64_t count) {
    float part[WIDTH], top = x[0];
    for (int u = 0; u < WIDTH; u++) part[u] = x[0];
    int64_t j = 0;
    for (; j + WIDTH <= count; j += WIDTH)
        for (int u = 0; u < WIDTH; u++) part[u] = x[j + u] > part[u] ? x[j + u] : part[u];
    for (; j < count; j++) top = x[j] > top ? x[j] : top;
    for (int u = 0; u < WIDTH; u++) top = part[u] > top ? part[u] : top;
    return top;
}

/* `rows` x `width` of c in registers; both are constants wherever this is inlined. */
static inline __attribute__((always_inline)) void block(
    const int rows, const int width, int64_t k, const float *restrict a, int64_t a_row, int64_t a_col,
    const float *restrict b, int64_t b_row, float *restrict c, int64_t c_row, int add) {
    float sum[ROWS][WIDE];
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < width; u++) sum[r][u] = add ? c[r * c_row + u] : 0.0f;
    for (int64_t p = 0; p < k; p++)
        for (int r = 0; r < rows; r++) {
            float x = a[r * a_row + p * a_col];
            for (int u = 0; u < width; u++) sum[r][u] += x * b[p * b_row + u];
        }
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < width; u++) c[r * c_row + u] = sum[r][u];
}

/* c (m x n) = a (m x k) b (k x n), or added to c; a by any strides, b and c by rows; n a multiple of WIDTH. */
static void product(int64_t m, int64_t n, int64_t k, const float *restrict a, int64_t a_row, int64_t a_col,
                    const float *restrict b, int64_t b_row, float *restrict c, int64_t c_row, int add) {
    for (int64_t i = 0; i < m; i += ROWS, a += ROWS * a_row, c += ROWS * c_row)
        for (int64_t j = 0; j < n;) {
            int wide = n - j >= WIDE;
#define BLOCK(rows, width) block(rows, width, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add)
            switch (m - i < ROWS ? m - i : ROWS) {
            case 1: wide ? BLOCK(1, WIDE) : BLOCK(1, WIDTH); break;
            case 2: wide ? BLOCK(2, WIDE) : BLOCK(2, WIDTH); break;
            case 3: wide ? BLOCK(3, WIDE) : BLOCK(3, WIDTH); break;
            default: wide ? BLOCK(ROWS, WIDE) : BLOCK(ROWS, WIDTH);
            }
            j += wide ? WIDE : WIDTH;
        }
}

/* One head's rows of a text, padded to size_up columns: copied (by rows) or transposed (size_up x length_up). */
static void gather(const float *from, int64_t row, int64_t length, int64_t size, int64_t size_up, float *to) {
    for (int64_t i = 0; i < length; i++) {
        memcpy(to + i * size_up, from + i * row, size * sizeof(float));
        memset(to + i * size_up + size, 0, (size_up - size) * sizeof(float));
    }
}
static void transpose(const float *from, int64_t row, int64_t length, int64_t size, int64_t length_up, float *to) {
    for (int64_t c = 0; c < size; c++) {
        for (int64_t i = 0; i < length; i++) to[c * length_up + i] = from[i * row + c];
        memset(to + c * length_up + length, 0, (length_up - length) * sizeof(float));
    }
}
static void add_rows(const float *from, int64_t size_up, int64_t length, int64_t size, float *to, int64_t row) {
    for (int64_t i = 0; i < length; i++) memcpy(to + i * row, from + i * size_up, size * sizeof(float));
}

typedef struct {
    int64_t texts, heads, groups, size;        /* groups: query heads that share a key-value head */
    int64_t longest;                           /* tokens of the longest text */
    int64_t q_token, q_head, k_token, k_head, v_token, v_head; /* strides in floats */
    int64_t causal, window, threads;           /* window 0: none */
    int64_t threshold;                         /* lanes below it are dropped */
    float scale, boost;                        /* boost: 1 / (1 - dropout) */
} Shape;

static void seen(const Shape *s, int64_t i, int64_t length, int64_t *first, int64_t *last) {
    *first = s->window && i - s->window + 1 > 0 ? i - s->window + 1 : 0;
    *last = s->causal ? i + 1 : (s->window && i + s->window < length ? i + s->window : length);
}

/* starts: (texts + 1); lanes: null, or for each text heads x length x length; lane_starts: (texts).
 * out: (tokens, heads, size) and sums: (heads, tokens), both dense. */
int attention_forward(const Shape *s, const int64_t *starts, const float *q, const float *k, const float *v,
                      const int16_t *lanes, const int64_t *lane_starts, float *out, float *sums) {
    int64_t tokens = starts[s->texts], up = round_up(s->longest), size_up = round_up(s->size), failed = 0;
    int64_t width = s->heads * s->size;
    const float scale = s->scale, boost = s->boost;
    const int16_t least = (int16_t)s->threshold;
#pragma omp parallel num_threads(s->threads)
    {
        float *keys = aligned_alloc(64, s->size * up * 4), *values = aligned_alloc(64, s->longest * size_up * 4);
        float *scores = aligned_alloc(64, s->longest * up * 4), *result = aligned_alloc(64, s->longest * size_up * 4);
        if (!keys || !values || !scores || !result)
#pragma omp atomic write
            failed = 1;
#pragma omp barrier
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < s->texts * s->heads; task++) {
            if (failed) continue;
            int64_t text = task / s->heads, head = task % s->heads, kv = head / s->groups;
            int64_t start = starts[text], length = starts[text + 1] - start, length_up = round_up(length);
            const float *qh = q + start * s->q_token + head * s->q_head;
            transpose(k + start * s->k_token + kv * s->k_head, s->k_token, length, s->size, length_up, keys);
            gather(v + start * s->v_token + kv * s->v_head, s->v_token, length, s->size, size_up, values);
            product(length, length_up, s->size, qh, s->q_token, 1, keys, length_up, scores, length_up, 0);
            for (int64_t i = 0; i < length; i++) {
                float *row = scores + i * length_up, sum = 0;
                int64_t first, last;
                seen(s, i, length, &first, &last);
                float top = largest(row + first, last - first);
                exponentials(row + first, last - first, scale, top * scale);
                for (int64_t j = first; j < last; j++) sum += row[j];
                for (int64_t j = 0; j < first; j++) row[j] = 0;
                for (int64_t j = last; j < length; j++) row[j] = 0;
                float share = 1 / sum;
                if (lanes) {
                    const int16_t *lane = lanes + lane_starts[text] + (head * length + i) * length;
                    float kept = share * boost;
                    for (int64_t j = 0; j < length; j++) row[j] *= lane[j] >= least ? kept : 0.0f;
                } else
                    for (int64_t j = 0; j < length; j++) row[j] *= share;
                sums[head * tokens + start + i] = top * scale + logf(sum);
            }
            product(length, size_up, length, scores, length_up, 1, values, size_up, result, size_up, 0);
            add_rows(result, size_up, length, s->size, out + start * width + head * s->size, width);
        }
        free(keys), free(values), free(scores), free(result);
    }
    return (int)failed;
}

/* d_q: (tokens, heads, size), d_k and d_v: (tokens, heads / groups, size), all dense; d_out as out. */
int attention_backward(const Shape *s, const int64_t *starts, const float *q, const float *k, const float *v,
                       const int16_t *lanes, const int64_t *lane_starts, const float *out, const float *sums,
                       const float *d_out, float *d_q, float *d_k, float *d_v) {
    int64_t tokens = starts[s->texts], up = round_up(s->longest), size_up = round_up(s->size), failed = 0;
    int64_t width = s->heads * s->size, kv_heads = s->heads / s->groups, kv_width = kv_heads * s->size;
    const float scale = s->scale, boost = s->boost;
    const int16_t least = (int16_t)s->threshold;
#pragma omp parallel num_threads(s->threads)
    {
        int64_t rows = s->longest * size_up * 4, square = s->longest * up * 4;
        float *turned = aligned_alloc(64, s->size * up * 4), *queries = aligned_alloc(64, rows);
        float *keys = aligned_alloc(64, rows), *outward = aligned_alloc(64, rows), *result = aligned_alloc(64, rows);
        float *weights = aligned_alloc(64, square), *slopes = aligned_alloc(64, square);
        float *to_keys = aligned_alloc(64, rows), *to_values = aligned_alloc(64, rows);
        if (!turned || !queries || !keys || !outward || !result || !weights || !slopes || !to_keys || !to_values)
#pragma omp atomic write
            failed = 1;
#pragma omp barrier
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < s->texts * kv_heads; task++) {
            if (failed) continue;
            int64_t text = task / kv_heads, kv = task % kv_heads;
            int64_t start = starts[text], length = starts[text + 1] - start, length_up = round_up(length);
            const float *kh = k + start * s->k_token + kv * s->k_head, *vh = v + start * s->v_token + kv * s->v_head;
            gather(kh, s->k_token, length, s->size, size_up, keys);
            for (int64_t head = kv * s->groups; head < (kv + 1) * s->groups; head++) {
                int add = head > kv * s->groups;
                const float *qh = q + start * s->q_token + head * s->q_head;
                const float *oh = out + start * width + head * s->size, *gh = d_out + start * width + head * s->size;
                gather(qh, s->q_token, length, s->size, size_up, queries);
                gather(gh, width, length, s->size, size_up, outward);
                transpose(kh, s->k_token, length, s->size, length_up, turned);
                product(length, length_up, s->size, queries, size_up, 1, turned, length_up, weights, length_up, 0);
                transpose(vh, s->v_token, length, s->size, length_up, turned);
                product(length, length_up, s->size, outward, size_up, 1, turned, length_up, slopes, length_up, 0);
                for (int64_t i = 0; i < length; i++) {
                    float *restrict weight = weights + i * length_up, *restrict slope = slopes + i * length_up, mean = 0;
                    float sum = sums[head * tokens + start + i];
                    int64_t first, last;
                    seen(s, i, length, &first, &last);
                    for (int64_t c = 0; c < s->size; c++) mean += gh[i * width + c] * oh[i * width + c];
                    for (int64_t j = 0; j < first; j++) weight[j] = slope[j] = 0;
                    for (int64_t j = last; j < length; j++) weight[j] = slope[j] = 0;
                    exponentials(weight + first, last - first, scale, sum);
                    if (lanes) {
                        const int16_t *lane = lanes + lane_starts[text] + (head * length + i) * length;
                        for (int64_t j = first; j < last; j++) {
                            float keep = lane[j] >= least ? boost : 0.0f;
                            slope[j] = weight[j] * (slope[j] * keep - mean) * scale;
                            weight[j] *= keep;
                        }
                    } else
                        for (int64_t j = first; j < last; j++) slope[j] = weight[j] * (slope[j] - mean) * scale;
                }
                product(length, size_up, length, slopes, length_up, 1, keys, size_up, result, size_up, 0);
                add_rows(result, size_up, length, s->size, d_q + start * width + head * s->size, width);
                product(length, size_up, length, slopes, 1, length_up, queries, size_up, to_keys, size_up, add);
                product(length, size_up, length, weights, 1, length_up, outward, size_up, to_values, size_up, add);
            }
            add_rows(to_keys, size_up, length, s->size, d_k + start * kv_width + kv * s->size, kv_width);
            add_rows(to_values, size_up, length, s->size, d_v + start * kv_width + kv * s->size, kv_width);
        }
        free(turned), free(queries), free(keys), free(outward), free(result), free(weights), free(slopes);
        free(to_keys), free(to_values);
    }
    return (int)failed;
}

/* out = x where the element's lane stays, times boost; 0 elsewhere. */
void drop(int64_t count, const float *x, const int16_t *lanes, int64_t threshold, float boost, float *out,
          int64_t threads) {
    int16_t least = (int16_t)threshold;
#pragma omp parallel for simd num_threads(threads) if (count > 8192) schedule(static)
    for (int64_t i = 0; i < count; i++) out[i] = lanes[i] >= least ? x[i] * boost : 0.0f;
}
