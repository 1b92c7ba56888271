// Random calls of the kernels: every table against the scalar one, on unaligned buffers between guard bytes.
// PUNA_FUZZ_CASES and PUNA_FUZZ_SEED run more of them, or one that failed again.
#include <cstdlib>
#include <limits>
#include <string>

#include "base/half.h"
#include "kernels/dispatch.h"
#include "tests/check.h"
#include "tests/guarded.h"

namespace puna::test {

namespace {

class Random {
  public:
    explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
    uint64_t bits() {  // splitmix64
        uint64_t z = state_ += 0x9e3779b97f4a7c15u;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
        z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
        return z ^ (z >> 31);
    }
    int64_t between(int64_t low, int64_t high) {
        return low + static_cast<int64_t>(bits() % static_cast<uint64_t>(high - low + 1));
    }
    bool one_in(int64_t n) { return between(1, n) == 1; }

  private:
    uint64_t state_;
};

// What a case's floats are like; the last two only where the kernel defines the result for them.
enum class Floats { ordinary, zeros, small_and_large, not_finite, any_bits };

float draw(Random& random, Floats kind) {
    const float ordinary = static_cast<float>(random.between(-1000000, 1000000)) * 1e-6f;
    switch (kind) {
        case Floats::zeros:
            return random.one_in(50) ? ordinary : 0.0f;
        case Floats::small_and_large:
            return std::ldexp(ordinary, static_cast<int>(random.between(-40, 40)));
        case Floats::not_finite: {
            const float inf = std::numeric_limits<float>::infinity();
            if (!random.one_in(40)) return ordinary;
            return random.one_in(2) ? std::nanf("") : random.one_in(2) ? inf : -inf;
        }
        case Floats::any_bits: {
            const auto bits = static_cast<uint32_t>(random.bits());
            float value;
            std::memcpy(&value, &bits, sizeof(value));
            return value;
        }
        default:
            return ordinary;
    }
}
Floats any_kind(Random& random) { return static_cast<Floats>(random.between(0, 4)); }

Guarded<float> floats(Random& random, int64_t n, Floats kind) {
    Guarded<float> values(n, random.between(0, 15));
    for (float& v : values) v = draw(random, kind);
    return values;
}

bool same(const Guarded<float>& a, const Guarded<float>& b) {
    return a.is_intact() && b.is_intact() &&
           same_bits({a.data(), a.data() + a.size()}, {b.data(), b.data() + b.size()});
}
template <class T>
bool same_bytes(const Guarded<T>& a, const Guarded<T>& b) {
    return a.is_intact() && b.is_intact() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

// One tile of any bytes that mean something: the kernels take every byte for a weight, but bfloat16 beyond
// what a tile unit handles is not part of the contract.
// `at_most` makes all integers the largest there are: what sums must have room for.
void draw_tile(Random& random, Format format, int64_t columns, bool at_most, uint8_t* tile) {
    const int64_t bytes = tile_bytes(format, columns);
    const Floats kind = format == Format::bf16 || random.one_in(2) ? Floats::ordinary : any_kind(random);
    const auto put_half = [&](uint8_t* p, uint16_t (*convert)(float)) {
        const uint16_t half = convert(draw(random, kind));
        std::memcpy(p, &half, sizeof(half));
    };
    const auto put = [&](uint8_t* p, auto value) { std::memcpy(p, &value, sizeof(value)); };
    if (format == Format::f32)
        for (int64_t i = 0; i < bytes; i += 4) put(tile + i, draw(random, kind));
    if (format == Format::bf16)
        for (int64_t i = 0; i < bytes; i += 2) put_half(tile + i, f32_to_bf16);
    if (!is_integer(format)) return;
    for (int64_t i = 0; i < bytes; i++)
        tile[i] = static_cast<uint8_t>(at_most || random.one_in(3) ? -1 : random.bits());
    if (format == Format::int8_channel) {
        uint8_t* tail = tile + bytes - sizeof(ChannelTail);
        for (int i = 0; i < 16; i++) {
            put(tail + 4 * i, draw(random, kind));
            put(tail + 64 + 4 * i, static_cast<int32_t>(random.between(-100000, 100000)));
        }
        return;
    }
    const int64_t block = (bytes - 64) / (columns / kColumnBlock);
    for (int64_t b = 0; b < columns / kColumnBlock; b++)
        for (int i = 0; i < 32; i++) {
            uint8_t* end = tile + (b + 1) * block;
            if (format == Format::int4_group32_f32)
                put(end - 128 + 4 * i, draw(random, kind));
            else
                put_half(end - 64 + 2 * i, f32_to_f16);
        }
    for (int i = 0; i < 16; i++) put(tile + bytes - 64 + 4 * i, draw(random, kind));
}

void fuzz_product(Random& random, const KernelTable& table, const KernelTable& scalar) {
    constexpr Format formats[] = {Format::f32,          Format::bf16,         Format::int8_channel,
                                  Format::int8_group32, Format::int4_group32, Format::int4_group32_f32};
    const Format format = formats[random.between(0, 5)];
    const int64_t columns = 64 * random.between(1, 6), tiles = random.between(1, 9);
    const int64_t rows = random.one_in(3) ? 1 : random.between(1, 70);
    const int64_t stride = columns + 64 * random.between(0, 1), q_stride = stride + 64 * random.between(0, 1);
    const Floats kind = format == Format::bf16 ? Floats::ordinary : any_kind(random);
    // Tiles are of bytes, but aligned as their floats are.
    Guarded<float> tiles_memory(tiles * tile_bytes(format, columns) / 4, random.between(0, 15));
    auto* weights = reinterpret_cast<uint8_t*>(tiles_memory.data());
    const bool at_most = random.one_in(5);
    for (int64_t t = 0; t < tiles; t++)
        draw_tile(random, format, columns, at_most, weights + t * tile_bytes(format, columns));
    const auto values = floats(random, rows * stride, kind);
    const auto scale = floats(random, rows, kind);
    Guarded<int8_t> q(rows * q_stride, random.between(0, 15));
    Guarded<uint16_t> half(rows * q_stride, random.between(0, 15));
    Guarded<int32_t> zero(rows), sums(rows * stride / kGroup);
    for (int8_t& v : q) v = static_cast<int8_t>(at_most || random.one_in(3) ? -128 : random.bits());
    Guarded<int16_t> wide(rows * q_stride, random.between(0, 15));
    for (int64_t i = 0; i < rows && table.widen_row != nullptr; i++)
        table.widen_row(q.data() + i * q_stride, columns, wide.data() + i * q_stride);
    for (uint16_t& v : half) v = f32_to_bf16(draw(random, kind));
    for (int32_t& v : zero) v = static_cast<int32_t>(random.between(-128, 127));
    for (int64_t i = 0; i < rows; i++)
        for (int64_t g = 0; g < columns / kGroup; g++)
            for (int64_t k = 0; k < kGroup; k++)
                sums[i * (stride / kGroup) + g] += q[i * q_stride + g * kGroup + k];
    const Activations x{values.data(), q.data(),    wide.data(), scale.data(), zero.data(),
                        sums.data(),   half.data(), stride,      q_stride,     rows};
    const int64_t begin = random.between(0, tiles - 1), end = random.between(begin, tiles);
    const int64_t y_stride = 16 * tiles + 16 * random.between(0, 2), shift = random.between(0, 15);
    Guarded<float> a(rows * y_stride, shift), b(rows * y_stride, random.between(0, 15));
    table.matmul({format, weights, columns, begin, end, x, a.data(), y_stride});
    scalar.matmul({format, weights, columns, begin, end, x, b.data(), y_stride});
    REQUIRE(same(a, b));

    Guarded<float> row_a(columns, shift), row_b(columns, shift);
    const int64_t row = random.between(0, 16 * tiles - 1);
    table.unpack_row(format, weights, columns, row, row_a.data());
    scalar.unpack_row(format, weights, columns, row, row_b.data());
    REQUIRE(same(row_a, row_b));
}

void fuzz_rounding(Random& random, const KernelTable& table, const KernelTable& scalar) {
    const int64_t columns = 64 * random.between(1, 6), shift = random.between(0, 15);
    const auto x = floats(random, columns, any_kind(random));
    Guarded<int8_t> q_a(columns, shift), q_b(columns, shift);
    Guarded<float> scale_a(1), scale_b(1);
    Guarded<int32_t> zero_a(1), zero_b(1), sums_a(columns / kGroup), sums_b(columns / kGroup);
    table.quantize_row(x.data(), columns, q_a.data(), scale_a.data(), zero_a.data(), sums_a.data());
    scalar.quantize_row(x.data(), columns, q_b.data(), scale_b.data(), zero_b.data(), sums_b.data());
    REQUIRE(same_bytes(q_a, q_b) && same(scale_a, scale_b));
    REQUIRE(same_bytes(zero_a, zero_b) && same_bytes(sums_a, sums_b));
    Guarded<uint16_t> half_a(columns, shift), half_b(columns, shift);
    table.round_row(x.data(), columns, half_a.data());
    scalar.round_row(x.data(), columns, half_b.data());
    REQUIRE(same_bytes(half_a, half_b));
}

void fuzz_rows(Random& random, const KernelTable& table, const KernelTable& scalar) {
    const int64_t dim = random.between(1, 200), padded = (dim + 15) / 16 * 16, shift = random.between(0, 15);
    const Floats kind = any_kind(random);
    const auto delta = floats(random, padded, kind), gain = floats(random, padded, kind);
    auto a = floats(random, padded, kind);
    Guarded<float> b(padded, shift), out_a(padded, shift), out_b(padded, shift);
    std::copy(a.begin(), a.end(), b.begin());
    const float* added = random.one_in(2) ? delta.data() : nullptr;
    table.add_rms_norm(a.data(), added, gain.data(), 1e-5f, dim, out_a.data());
    scalar.add_rms_norm(b.data(), added, gain.data(), 1e-5f, dim, out_b.data());
    REQUIRE(same(a, b) && same(out_a, out_b));

    const int64_t heads = random.between(1, 4), half = random.between(1, 40);
    const auto cosine = floats(random, half, kind), sine = floats(random, half, kind);
    auto rotated_a = floats(random, heads * 2 * half, kind);
    Guarded<float> rotated_b(heads * 2 * half, shift);
    std::copy(rotated_a.begin(), rotated_a.end(), rotated_b.begin());
    table.rope(rotated_a.data(), heads, 2 * half, cosine.data(), sine.data());
    scalar.rope(rotated_b.data(), heads, 2 * half, cosine.data(), sine.data());
    REQUIRE(same(rotated_a, rotated_b));

    table.silu_mul(a.data(), gain.data(), padded);
    scalar.silu_mul(b.data(), gain.data(), padded);
    REQUIRE(same(a, b));
    table.add_scaled(a.data(), gain.data(), delta.data()[0], padded);
    scalar.add_scaled(b.data(), gain.data(), delta.data()[0], padded);
    REQUIRE(same(a, b));
    Guarded<float> found_a(2), found_b(2);
    found_a[0] = table.largest(a.data(), dim);
    found_b[0] = scalar.largest(b.data(), dim);
    const float spread = draw(random, Floats::ordinary);
    found_a[1] = table.exp_sum(a.data(), dim, found_a[0], spread, out_a.data());
    found_b[1] = scalar.exp_sum(b.data(), dim, found_b[0], spread, out_b.data());
    REQUIRE(same(found_a, found_b) && same(out_a, out_b));
}

void fuzz_rotation(Random& random, const KernelTable& table, const KernelTable& scalar) {
    const int64_t block = int64_t{1} << random.between(0, 10);
    const int64_t n = std::max(block, int64_t{16}) * random.between(1, 5);
    auto a = floats(random, n, any_kind(random));
    Guarded<float> b(n, random.between(0, 15));
    std::copy(a.begin(), a.end(), b.begin());
    table.rotate_blocks(a.data(), n, block);
    scalar.rotate_blocks(b.data(), n, block);
    REQUIRE(same(a, b));
}

uint64_t setting(const char* name, uint64_t otherwise) {
    const char* text = std::getenv(name);
    return text == nullptr ? otherwise : std::strtoull(text, nullptr, 10);
}

}  // namespace

void test_fuzz() {
    const uint64_t first = setting("PUNA_FUZZ_SEED", 1), cases = setting("PUNA_FUZZ_CASES", 300);
    const KernelTable& scalar = find_kernels("scalar");
    for (const char* name : runnable_isas())
        for (uint64_t seed = first; seed < first + cases; seed++) {
            Random random(seed);
            const int before = failures;
            fuzz_product(random, find_kernels(name), scalar);
            fuzz_rounding(random, find_kernels(name), scalar);
            fuzz_rows(random, find_kernels(name), scalar);
            fuzz_rotation(random, find_kernels(name), scalar);
            if (failures > before)
                std::printf("PUNA_FUZZ_SEED=%llu PUNA_FUZZ_CASES=1 repeats it on %s\n",
                            static_cast<unsigned long long>(seed), name);
        }
}

}  // namespace puna::test
