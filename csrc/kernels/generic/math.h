// Elementary functions on the vector vocabulary.
#pragma once

namespace {

// Round to nearest even, for |x| < 2^22: adding 1.5 x 2^23 leaves no fraction bits.
inline F32x16 round_even(F32x16 x) {
    const F32x16 magic = set1(12582912.0f);
    return (x + magic) - magic;
}

// e^x, within 2 ulp; zero below -87.3 (no subnormals), finite above 88.
// x = n ln 2 + r with |r| <= ln 2 / 2, ln 2 in two parts; e^r by a degree-6 Taylor polynomial.
inline F32x16 exp(F32x16 x) {
    const F32x16 lowest = set1(-87.3f);
    // With the bound first, a NaN in x comes through.
    const F32x16 bounded = min(set1(88.0f), max(lowest, x));
    const F32x16 n = round_even(bounded * set1(1.44269504088896341f));
    F32x16 r = fma(n, set1(-0.693145751953125f), bounded);
    r = fma(n, set1(-1.42860682030941723212e-6f), r);
    F32x16 p = set1(1.0f / 720.0f);
    p = fma(p, r, set1(1.0f / 120.0f));
    p = fma(p, r, set1(1.0f / 24.0f));
    p = fma(p, r, set1(1.0f / 6.0f));
    p = fma(p, r, set1(0.5f));
    p = fma(p, r, set1(1.0f));
    p = fma(p, r, set1(1.0f));
    return zero_where_below(p * exp2_whole(n), x, lowest);
}

// The first n < 16 floats of p, the other lanes `fill`.
inline F32x16 load_some(const float* p, int64_t n, float fill) {
    float lanes[16];
    for (int64_t i = 0; i < 16; i++) lanes[i] = i < n ? p[i] : fill;
    return load(lanes);
}
inline void store_some(float* p, int64_t n, F32x16 a) {
    float lanes[16];
    store(lanes, a);
    for (int64_t i = 0; i < n; i++) p[i] = lanes[i];
}

}  // namespace
