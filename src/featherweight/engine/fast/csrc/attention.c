/* Attention over texts that lie end to end.
 *
 * Texts are short and many, so one task is one head of one text: its scores fit the cache, and products are made by a
 * small register-blocked kernel. Nothing of size (length x length) is kept for the backward pass: weights are
 * recomputed from the logarithm of their sum, as in FlashAttention-2 (Dao, 2023), and dropout from its key.
 */
#include "vector.h"

/* ROWS x 2 vectors of sums stay in registers, of which AVX-512 has twice as many. */
#if WIDTH == 16
#define ROWS 8
#else
#define ROWS 4
#endif

INLINE void block(const int rows, const int vectors, int64_t k, const float *restrict a, int64_t a_row, int64_t a_col,
                  const float *restrict b, int64_t b_row, float *restrict c, int64_t c_row, int add) {
    vec sum[ROWS][2];
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < vectors; u++) sum[r][u] = add ? load(c + r * c_row + u * WIDTH) : (vec){0};
    for (int64_t p = 0; p < k; p++, b += b_row) {
        vec column[2];
        for (int u = 0; u < vectors; u++) column[u] = load(b + u * WIDTH);
        for (int r = 0; r < rows; r++)
            for (int u = 0; u < vectors; u++) sum[r][u] += a[r * a_row + p * a_col] * column[u];
    }
    for (int r = 0; r < rows; r++)
        for (int u = 0; u < vectors; u++) store(c + r * c_row + u * WIDTH, sum[r][u]);
}

/* c (m x n) = a (m x k) b (k x n), or added to c; a by any strides, b and c by rows; n a multiple of WIDTH. */
static void product(int64_t m, int64_t n, int64_t k, const float *restrict a, int64_t a_row, int64_t a_col,
                    const float *restrict b, int64_t b_row, float *restrict c, int64_t c_row, int add) {
    for (int64_t i = 0; i < m; i += ROWS, a += ROWS * a_row, c += ROWS * c_row)
        for (int64_t j = 0, wide; j < n; j += wide * WIDTH) {
            wide = n - j >= 2 * WIDTH ? 2 : 1;
#define BLOCK(rows)                                                                         \
    case rows:                                                                              \
        if (wide == 2) block(rows, 2, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add); \
        else block(rows, 1, k, a, a_row, a_col, b + j, b_row, c + j, c_row, add);           \
        break
            switch (m - i < ROWS ? m - i : ROWS) {
                BLOCK(1);
                BLOCK(2);
                BLOCK(3);
                BLOCK(4);
#if ROWS > 4
                BLOCK(5);
                BLOCK(6);
                BLOCK(7);
                BLOCK(8);
#endif
            }
        }
}

/* One head's rows of a text as (size x length_up), the columns behind the text 0. */
#ifdef __AVX__
INLINE void transpose_8(const float *from, int64_t row, float *to, int64_t to_row) {
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++) r[i] = _mm256_loadu_ps(from + i * row);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(to + i * to_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(to + (i + 4) * to_row, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}
#else
INLINE void transpose_8(const float *from, int64_t row, float *to, int64_t to_row) {
    for (int c = 0; c < 8; c++)
        for (int i = 0; i < 8; i++) to[c * to_row + i] = from[i * row + c];
}
#endif
static void transpose(const float *from, int64_t row, int64_t length, int64_t size, int64_t length_up, float *to) {
    int64_t i = 0;
    for (; i + 8 <= length; i += 8) {
        int64_t c = 0;
        for (; c + 8 <= size; c += 8) transpose_8(from + i * row + c, row, to + c * length_up + i, length_up);
        for (; c < size; c++)
            for (int u = 0; u < 8; u++) to[c * length_up + i + u] = from[(i + u) * row + c];
    }
    for (int64_t c = 0; c < size; c++)
        for (int64_t u = i; u < length_up; u++) to[c * length_up + u] = u < length ? from[u * row + c] : 0;
}

typedef struct {
    int64_t texts, heads, groups, size;        /* groups: query heads that share a key-value head */
    int64_t longest;                           /* tokens of the longest text */
    int64_t q_token, q_head, k_token, k_head, v_token, v_head; /* strides in floats */
    int64_t causal, window, threads;           /* window 0: none */
    float scale;
    Dropout dropout;                           /* its indices: texts, heads, queries, keys; no padding */
} Shape;

/* A matrix of `size` columns, as a product's right side or result wants it: a multiple of WIDTH. Where size is none,
 * rows go through scratch memory. */
typedef struct {
    float *at;
    int64_t row;
} Matrix;

INLINE Matrix padded(const float *from, int64_t row, int64_t length, int64_t size, float *scratch) {
    int64_t up = round_up(size);
    if (up == size) return (Matrix){(float *)from, row};
    for (int64_t i = 0; i < length; i++) {
        memcpy(scratch + i * up, from + i * row, size * sizeof(float));
        memset(scratch + i * up + size, 0, (up - size) * sizeof(float));
    }
    return (Matrix){scratch, up};
}
INLINE Matrix result_at(float *to, int64_t row, int64_t size, float *scratch) {
    int64_t up = round_up(size);
    return up == size ? (Matrix){to, row} : (Matrix){scratch, up};
}
INLINE void put_back(Matrix from, int64_t length, int64_t size, float *to, int64_t row) {
    if (from.at != to)
        for (int64_t i = 0; i < length; i++) memcpy(to + i * row, from.at + i * from.row, size * sizeof(float));
}

/* The keys that query i sees, and the vectors that hold any of them. */
typedef struct {
    int64_t first, last, from, to;
} Seen;
INLINE Seen seen_by(const Shape *s, int64_t i, int64_t length) {
    int64_t first = s->window && i - s->window + 1 > 0 ? i - s->window + 1 : 0;
    int64_t last = s->causal ? i + 1 : (s->window && i + s->window < length ? i + s->window : length);
    return (Seen){first, last, first / WIDTH * WIDTH, round_up(last)};
}
INLINE int is_whole(Seen keys, int64_t j) { return j >= keys.first && j + WIDTH <= keys.last; }
INLINE ivec mask_of(Seen keys, int64_t j) {
    ivec at = COUNT + (int32_t)j;
    return (at >= (int32_t)keys.first) & (at < (int32_t)keys.last);
}
INLINE void clear_unseen(Seen keys, float *row, int64_t length) {
    for (int64_t j = 0; j < keys.from; j += WIDTH) store(row + j, (vec){0});
    for (int64_t j = keys.to; j < length; j += WIDTH) store(row + j, (vec){0});
}

/* Scores to the exponentials that weights are made of, in place, with dropout; gives their sum before it, by which
 * what they are multiplied with is to be divided, and its logarithm. */
static float softmax(const Shape *s, float *row, int64_t i, int64_t length, uint32_t index, float *total) {
    Seen keys = seen_by(s, i, length);
    const Dropout dropout = s->dropout; /* copies, because a compiler must assume that writing a row may change *s */
    const float scale = s->scale;
    vec top = all(-INFINITY), sum = {0};
    for (int64_t j = keys.from; j < keys.to; j += WIDTH) {
        vec x = load(row + j);
        if (!is_whole(keys, j)) store(row + j, x = choose(mask_of(keys, j), x, all(-INFINITY)));
        top = larger(x, top);
    }
    float most = largest_of(top);
    for (int64_t j = keys.from; j < keys.to; j += WIDTH) {
        vec x = exponential((load(row + j) - most) * scale);
        sum += x;
        store(row + j, dropout.on ? drop_out(&dropout, index + (uint32_t)j, x) : x);
    }
    clear_unseen(keys, row, length);
    *total = sum_of(sum);
    return most * scale + logf(*total);
}

/* The queries of a text: all of its tokens, or the one whose place in the row is asked for. */
typedef struct {
    int64_t first, count;
} Queries;
INLINE Queries queries_of(const int64_t *reads, int64_t text, int64_t start, int64_t length) {
    return reads ? (Queries){reads[text] - start, 1} : (Queries){0, length};
}

/* starts: (texts + 1); firsts: (texts), the index of each text's first weight, for dropout; reads: (texts), the token
 * of each text that is a query, or none where all are: what belongs to others is left as it is.
 * out: (tokens, heads, size) and sums: (heads, tokens), both dense. Not 0: no memory. */
int attention_forward(const Shape *s, const int64_t *starts, const int64_t *firsts, const int64_t *reads,
                      const float *q, const float *k, const float *v, float *out, float *sums) {
    int64_t tokens = starts[s->texts], up = round_up(s->longest), size_up = round_up(s->size), failed = 0;
    int64_t width = s->heads * s->size, rows = s->longest * size_up;
#pragma omp parallel num_threads(s->threads)
    {
        float *scratch = malloc((s->size * up + 2 * rows + s->longest * (up + 1)) * sizeof(float));
        float *keys = scratch, *values = keys + s->size * up, *spare = values + rows, *scores = spare + rows;
        float *totals = scores + s->longest * up;
        if (!scratch)
#pragma omp atomic write
            failed = 1;
#pragma omp barrier
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < s->texts * s->heads; task++) {
            if (failed) continue;
            int64_t text = task / s->heads, head = task % s->heads, kv = head / s->groups;
            int64_t start = starts[text], length = starts[text + 1] - start, length_up = round_up(length);
            uint32_t first = (uint32_t)(firsts[text] + head * length * length);
            Queries asked = queries_of(reads, text, start, length);
            int64_t at = start + asked.first;
            transpose(k + start * s->k_token + kv * s->k_head, s->k_token, length, s->size, length_up, keys);
            product(asked.count, length_up, s->size, q + at * s->q_token + head * s->q_head, s->q_token, 1, keys,
                    length_up, scores, length_up, 0);
            for (int64_t r = 0, i = asked.first; r < asked.count; r++, i++)
                sums[head * tokens + start + i] =
                    softmax(s, scores + r * length_up, i, length, first + (uint32_t)(i * length), totals + r);
            Matrix of = padded(v + start * s->v_token + kv * s->v_head, s->v_token, length, s->size, values);
            float *to = out + at * width + head * s->size;
            Matrix result = result_at(to, width, s->size, spare);
            product(asked.count, size_up, length, scores, length_up, 1, of.at, of.row, result.at, result.row, 0);
            for (int64_t r = 0; r < asked.count; r++)
                for (int64_t c = 0; c < size_up; c += WIDTH) {
                    float *sum = result.at + r * result.row + c;
                    store(sum, load(sum) * (1 / totals[r]));
                }
            put_back(result, asked.count, s->size, to, width);
        }
        free(scratch);
    }
    return (int)failed;
}

/* Scores to weights with dropout, and slopes of the weights to slopes of the scores, both in place. `mean` is the
 * row's d_out times out, which is the mean of the slopes under the weights. */
static void softmax_backward(const Shape *s, float *weight, float *slope, int64_t i, int64_t length, float sum,
                             float mean, uint32_t index) {
    Seen keys = seen_by(s, i, length);
    const Dropout dropout = s->dropout;
    const float scale = s->scale;
    for (int64_t j = keys.from; j < keys.to; j += WIDTH) {
        vec p = exponential(load(weight + j) * scale - sum);
        if (!is_whole(keys, j)) p = where(mask_of(keys, j), p);
        vec d = load(slope + j), kept = p;
        if (dropout.on) {
            ivec stay = stays(&dropout, index + (uint32_t)j);
            d = where(stay, d * dropout.boost);
            kept = where(stay, p * dropout.boost);
        }
        store(slope + j, p * (d - mean) * scale);
        store(weight + j, kept);
    }
    clear_unseen(keys, slope, length);
    clear_unseen(keys, weight, length);
}

/* d_q: (tokens, heads, size), d_k and d_v: (tokens, heads / groups, size), all dense; d_out as out. */
int attention_backward(const Shape *s, const int64_t *starts, const int64_t *firsts, const int64_t *reads,
                       const float *q, const float *k, const float *v, const float *out, const float *sums,
                       const float *d_out, float *d_q, float *d_k, float *d_v) {
    int64_t tokens = starts[s->texts], up = round_up(s->longest), size_up = round_up(s->size), failed = 0;
    int64_t width = s->heads * s->size, kv_heads = s->heads / s->groups, kv_width = kv_heads * s->size;
    int64_t rows = s->longest * size_up, square = s->longest * up;
#pragma omp parallel num_threads(s->threads)
    {
        float *scratch = malloc((2 * s->size * up + 6 * rows + 2 * square) * sizeof(float));
        float *keys = scratch, *values = keys + s->size * up, *weights = values + s->size * up;
        float *slopes = weights + square, *spare = slopes + square;
        if (!scratch)
#pragma omp atomic write
            failed = 1;
#pragma omp barrier
#pragma omp for schedule(dynamic, 2)
        for (int64_t task = 0; task < s->texts * kv_heads; task++) {
            if (failed) continue;
            int64_t text = task / kv_heads, kv = task % kv_heads;
            int64_t start = starts[text], length = starts[text + 1] - start, length_up = round_up(length);
            Queries asked = queries_of(reads, text, start, length);
            int64_t at = start + asked.first;
            const float *kh = k + start * s->k_token + kv * s->k_head;
            float *to_k = d_k + start * kv_width + kv * s->size, *to_v = d_v + start * kv_width + kv * s->size;
            Matrix by_key = padded(kh, s->k_token, length, s->size, spare);
            Matrix for_k = result_at(to_k, kv_width, s->size, spare + rows);
            Matrix for_v = result_at(to_v, kv_width, s->size, spare + 2 * rows);
            transpose(kh, s->k_token, length, s->size, length_up, keys);
            transpose(v + start * s->v_token + kv * s->v_head, s->v_token, length, s->size, length_up, values);
            for (int64_t head = kv * s->groups; head < (kv + 1) * s->groups; head++) {
                int add = head > kv * s->groups;
                uint32_t first = (uint32_t)(firsts[text] + head * length * length);
                const float *oh = out + at * width + head * s->size, *gh = d_out + at * width + head * s->size;
                float *to_q = d_q + at * width + head * s->size;
                Matrix by_query = padded(q + at * s->q_token + head * s->q_head, s->q_token, asked.count, s->size,
                                         spare + 3 * rows);
                Matrix outward = padded(gh, width, asked.count, s->size, spare + 4 * rows);
                Matrix for_q = result_at(to_q, width, s->size, spare + 5 * rows);
                product(asked.count, length_up, s->size, by_query.at, by_query.row, 1, keys, length_up, weights,
                        length_up, 0);
                product(asked.count, length_up, s->size, gh, width, 1, values, length_up, slopes, length_up, 0);
                for (int64_t r = 0, i = asked.first; r < asked.count; r++, i++)
                    softmax_backward(s, weights + r * length_up, slopes + r * length_up, i, length,
                                     sums[head * tokens + start + i], dot(gh + r * width, oh + r * width, s->size),
                                     first + (uint32_t)(i * length));
                product(asked.count, size_up, length, slopes, length_up, 1, by_key.at, by_key.row, for_q.at, for_q.row,
                        0);
                product(length, size_up, asked.count, slopes, 1, length_up, by_query.at, by_query.row, for_k.at,
                        for_k.row, add);
                product(length, size_up, asked.count, weights, 1, length_up, outward.at, outward.row, for_v.at,
                        for_v.row, add);
                put_back(for_q, asked.count, s->size, to_q, width);
            }
            put_back(for_k, length, s->size, to_k, kv_width);
            put_back(for_v, length, s->size, to_v, kv_width);
        }
        free(scratch);
    }
    return (int)failed;
}
