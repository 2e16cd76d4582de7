/* Activations and the root-mean-square norm, forward and backward in one pass each. */
#include "vector.h"

/* erf to 4 ulp: the rational approximation of Eigen and XLA on [-4, 4], 1 outside. */
INLINE vec error_function(vec x) {
    x = choose(x < 4.0f, x, all(4.0f));
    x = choose(x > -4.0f, x, all(-4.0f));
    vec z = x * x;
    vec p = z * -2.72614225801306e-10f + 2.77068142495902e-08f;
    p = p * z - 2.10102402082508e-06f;
    p = p * z - 5.69250639462346e-05f;
    p = p * z - 7.34990630326855e-04f;
    p = p * z - 2.95459980854025e-03f;
    p = p * z - 1.60960333262415e-02f;
    vec q = z * -1.45660718464996e-05f - 2.13374055278905e-04f;
    q = q * z - 1.68282697438203e-03f;
    q = q * z - 7.37332916720468e-03f;
    q = q * z - 1.42647390514189e-02f;
    return x * p / q;
}
INLINE vec sigmoid(vec x) { return 1.0f / (1.0f + exponential(-x)); }

#define SQRT_HALF 0.70710678118654752f
#define PEAK 0.39894228040143268f  /* 1 / sqrt(2 pi) */
#define INNER 1.59576912160573071f /* 2 sqrt(2 / pi): tanh(u) = 2 sigmoid(2 u) - 1 */
#define CUBE 0.044715f

/* Each gives the activation and its slope. */
INLINE vec gelu(vec x, vec *slope) {
    vec below = 0.5f + 0.5f * error_function(x * SQRT_HALF);
    if (slope) *slope = below + x * PEAK * exponential(-0.5f * x * x);
    return x * below;
}
INLINE vec gelu_tanh(vec x, vec *slope) {
    vec s = sigmoid(INNER * (x + CUBE * x * x * x));
    if (slope) *slope = s + x * s * (1.0f - s) * INNER * (1.0f + 3.0f * CUBE * x * x);
    return x * s;
}
INLINE vec silu(vec x, vec *slope) {
    vec s = sigmoid(x);
    if (slope) *slope = s * (1.0f + x * (1.0f - s));
    return x * s;
}
enum { GELU, GELU_TANH, SILU };
INLINE vec activation(const int kind, vec x, vec *slope) {
    return kind == GELU ? gelu(x, slope) : kind == GELU_TANH ? gelu_tanh(x, slope) : silu(x, slope);
}

/* With a gate: out = f(x) gate; without: out = f(x). Backward, with the result's gradient d: d_x, and d_gate. */
INLINE void forward_part(const int kind, const float *x, const float *gate, float *out, int64_t i, int64_t some) {
    vec y = activation(kind, load_some(x + i, some), 0);
    store_some(out + i, gate ? y * load_some(gate + i, some) : y, some);
}
INLINE void forward_all(const int kind, int64_t count, const float *x, const float *gate, float *out, int64_t threads) {
    int64_t whole = count / WIDTH * WIDTH;
#pragma omp parallel for num_threads(threads) if (count > 4096) schedule(static)
    for (int64_t i = 0; i < whole; i += WIDTH) {
        vec y = activation(kind, load(x + i), 0);
        store(out + i, gate ? y * load(gate + i) : y);
    }
    if (whole < count) forward_part(kind, x, gate, out, whole, count - whole);
}
INLINE void backward_part(const int kind, const float *x, const float *gate, const float *d, float *d_x, float *d_gate,
                          int64_t i, const int whole, int64_t some) {
    vec slope, here = whole ? load(x + i) : load_some(x + i, some), back = whole ? load(d + i) : load_some(d + i, some);
    vec y = activation(kind, here, &slope);
    vec to_x = slope * back;
    if (gate) {
        to_x *= whole ? load(gate + i) : load_some(gate + i, some);
        whole ? store(d_gate + i, y * back) : store_some(d_gate + i, y * back, some);
    }
    whole ? store(d_x + i, to_x) : store_some(d_x + i, to_x, some);
}
INLINE void backward_all(const int kind, int64_t count, const float *x, const float *gate, const float *d, float *d_x,
                         float *d_gate, int64_t threads) {
    int64_t whole = count / WIDTH * WIDTH;
#pragma omp parallel for num_threads(threads) if (count > 4096) schedule(static)
    for (int64_t i = 0; i < whole; i += WIDTH) backward_part(kind, x, gate, d, d_x, d_gate, i, 1, WIDTH);
    if (whole < count) backward_part(kind, x, gate, d, d_x, d_gate, whole, 0, count - whole);
}

void activate(int64_t kind, int64_t count, const float *x, const float *gate, float *out, int64_t threads) {
    switch (kind) {
    case GELU: forward_all(GELU, count, x, gate, out, threads); break;
    case GELU_TANH: forward_all(GELU_TANH, count, x, gate, out, threads); break;
    default: forward_all(SILU, count, x, gate, out, threads);
    }
}
void activate_backward(int64_t kind, int64_t count, const float *x, const float *gate, const float *d, float *d_x,
                       float *d_gate, int64_t threads) {
    switch (kind) {
    case GELU: backward_all(GELU, count, x, gate, d, d_x, d_gate, threads); break;
    case GELU_TANH: backward_all(GELU_TANH, count, x, gate, d, d_x, d_gate, threads); break;
    default: backward_all(SILU, count, x, gate, d, d_x, d_gate, threads);
    }
}

/* out = x / sqrt(mean(x^2) + epsilon) weight, row by row; scales (rows): what each row was multiplied by. */
void rms_norm(int64_t rows, int64_t width, const float *x, const float *weight, float epsilon, float *out,
              float *scales, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float *from = x + i * width;
        float *to = out + i * width, scale = 1 / sqrtf(dot(from, from, width) / width + epsilon);
        int64_t j = 0;
        for (; j + WIDTH <= width; j += WIDTH) store(to + j, load(from + j) * scale * load(weight + j));
        for (; j < width; j++) to[j] = from[j] * scale * weight[j];
        scales[i] = scale;
    }
}
void rms_norm_backward(int64_t rows, int64_t width, const float *x, const float *weight, const float *scales,
                       const float *d, float *d_x, int64_t threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < rows; i++) {
        const float *from = x + i * width, *back = d + i * width;
        float *to = d_x + i * width, scale = scales[i];
        vec along = {0};
        int64_t j = 0;
        for (; j + WIDTH <= width; j += WIDTH) along += load(from + j) * load(weight + j) * load(back + j);
        float mean = sum_of(along);
        for (; j < width; j++) mean += from[j] * weight[j] * back[j];
        mean *= scale * scale / width;
        for (j = 0; j + WIDTH <= width; j += WIDTH)
            store(to + j, scale * (load(weight + j) * load(back + j) - load(from + j) * mean));
        for (; j < width; j++) to[j] = scale * (weight[j] * back[j] - from[j] * mean);
    }
}
