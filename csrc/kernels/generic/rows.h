// Kernels on rows of activations: norm, rotation, activation function, quantization.
#pragma once

namespace {

// Dynamic asymmetric int8, a scale and a zero point a row, the range including zero:
//   scale = (max - min) / 255, zero = round(-128 - min / scale), q = round(x / scale) + zero
// as torchao's per_token_dynamic_quant. A row with a NaN or an infinity gets the scale NaN, so that it
// shows in every output instead of vanishing in a clamp.
void quantize_row(const float* x, int64_t columns, int8_t* q, float* scale, int32_t* zero,
                  int32_t* group_sum) {
    F32x16 low = set1(0.0f), high = set1(0.0f), poison = set1(0.0f);
    for (int64_t i = 0; i < columns; i += 16) {
        const F32x16 v = load(x + i);
        low = min(v, low);
        high = max(v, high);
        poison = fma(v, set1(0.0f), poison);
    }
    const float lowest = -reduce_max(set1(0.0f) - low);
    const float span = (reduce_max(high) - lowest) / 255.0f;
    const float s = span > 1.1920929e-7f ? span : 1.1920929e-7f;
    const F32x16 inverse = set1(1.0f / s), bottom = set1(-128.0f), top = set1(127.0f);
    // The clamps put the value first: a NaN becomes the bound, and the float-to-integer step is defined.
    float lanes[16];
    store(lanes, min(max(round_even(set1(-128.0f - lowest / s)), bottom), top));
    const float z = lanes[0];
    const F32x16 far = set1(1024.0f);
    for (int64_t i = 0; i < columns; i += 16) {
        const F32x16 steps = round_even(min(max(load(x + i) * inverse, set1(0.0f) - far), far));
        store_i8(q + i, min(max(steps + set1(z), bottom), top));
    }
    for (int64_t g = 0; g < columns / puna::kGroup; g++) {
        int32_t sum = 0;
        for (int64_t i = 0; i < puna::kGroup; i++) sum += q[g * puna::kGroup + i];
        group_sum[g] = sum;
    }
    *scale = s + reduce_sum(poison);
    *zero = static_cast<int32_t>(z);
}

[[maybe_unused]] void widen_row(const int8_t* q, int64_t columns, int16_t* wide) {
    for (int64_t g = 0; g < columns; g += puna::kGroup)
        for (int64_t i = 0; i < puna::kGroup / 2; i++) {
            wide[g + i] = q[g + 2 * i];
            wide[g + puna::kGroup / 2 + i] = q[g + 2 * i + 1];
        }
}

void round_row(const float* x, int64_t columns, uint16_t* half) {
    for (int64_t i = 0; i < columns; i++) half[i] = puna::f32_to_bf16(x[i]);
}

void add_rms_norm(float* x, const float* delta, const float* gain, float eps, int64_t dim, float* out) {
    const int64_t whole = dim / 16 * 16, rest = dim - whole;
    F32x16 squares = set1(0.0f);
    for (int64_t i = 0; i < whole; i += 16) {
        F32x16 v = load(x + i);
        if (delta != nullptr) {
            v = v + load(delta + i);
            store(x + i, v);
        }
        squares = fma(v, v, squares);
    }
    if (rest > 0) {
        F32x16 v = load_some(x + whole, rest, 0.0f);
        if (delta != nullptr) {
            v = v + load_some(delta + whole, rest, 0.0f);
            store_some(x + whole, rest, v);
        }
        squares = fma(v, v, squares);
    }
    const float mean = reduce_sum(squares) / static_cast<float>(dim);
    const F32x16 factor = set1(1.0f / __builtin_sqrtf(mean + eps));
    for (int64_t i = 0; i < whole; i += 16) store(out + i, load(x + i) * factor * load(gain + i));
    if (rest > 0) {
        const F32x16 v = load_some(x + whole, rest, 0.0f) * factor * load_some(gain + whole, rest, 0.0f);
        store_some(out + whole, rest, v);
    }
}

inline void rotate(F32x16 a, F32x16 b, F32x16 c, F32x16 s, F32x16& first, F32x16& second) {
    first = fma(a, c, set1(0.0f) - b * s);
    second = fma(b, c, a * s);
}

void rope(float* x, int64_t heads, int64_t head_dim, const float* cosine, const float* sine) {
    const int64_t half = head_dim / 2, whole = half / 16 * 16, rest = half - whole;
    F32x16 first, second;
    for (int64_t h = 0; h < heads; h++) {
        float* a = x + h * head_dim;
        float* b = a + half;
        for (int64_t i = 0; i < whole; i += 16) {
            rotate(load(a + i), load(b + i), load(cosine + i), load(sine + i), first, second);
            store(a + i, first);
            store(b + i, second);
        }
        if (rest == 0) continue;
        rotate(load_some(a + whole, rest, 0), load_some(b + whole, rest, 0),
               load_some(cosine + whole, rest, 0), load_some(sine + whole, rest, 0), first, second);
        store_some(a + whole, rest, first);
        store_some(b + whole, rest, second);
    }
}

// gate = gate / (1 + exp(-gate)) * up
void silu_mul(float* gate, const float* up, int64_t n) {
    const F32x16 one = set1(1.0f), zero = set1(0.0f);
    for (int64_t i = 0; i < n; i += 16) {
        const F32x16 g = load(gate + i);
        store(gate + i, g / (one + exp(zero - g)) * load(up + i));
    }
}

void add_scaled(float* y, const float* x, float factor, int64_t n) {
    const F32x16 f = set1(factor);
    for (int64_t i = 0; i < n; i += 16) store(y + i, fma(f, load(x + i), load(y + i)));
}

float largest(const float* x, int64_t n) {
    const float low = -__builtin_inff();
    F32x16 top = set1(low);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) top = max(load(x + i), top);
    if (i < n) top = max(load_some(x + i, n - i, low), top);
    return reduce_max(top);
}

float exp_sum(const float* x, int64_t n, float shift, float factor, float* out) {
    const F32x16 s = set1(shift), f = set1(factor);
    F32x16 sum = set1(0.0f);
    int64_t i = 0;
    for (; i + 16 <= n; i += 16) {
        const F32x16 e = exp((load(x + i) - s) * f);
        store(out + i, e);
        sum = sum + e;
    }
    if (i < n) {
        const F32x16 e = exp((load_some(x + i, n - i, -__builtin_inff()) - s) * f);
        store_some(out + i, n - i, e);
        sum = sum + e;
    }
    return reduce_sum(sum);
}

}  // namespace
