// Every table against the scalar one, on buffers of exactly the promised size, so that a sanitizer sees a
// byte too many.
#include <algorithm>
#include <limits>

#include "kernels/dispatch.h"
#include "model/rows.h"
#include "pack/pack.h"
#include "tests/check.h"

namespace puna::test {

namespace {

constexpr Format kFormats[] = {Format::f32,          Format::bf16,         Format::int8_channel,
                               Format::int8_group32, Format::int4_group32, Format::int4_group32_f32};

std::vector<uint8_t> pack_random(Format format, int64_t rows, int64_t columns, Weight& w) {
    const auto values = random_floats(rows * columns, static_cast<uint32_t>(rows * 31 + columns), 0.05f);
    w.format = format;
    w.rows = rows;
    w.columns = columns;
    std::vector<uint8_t> packed(static_cast<size_t>(w.bytes()));
    std::vector<int8_t> q(values.size());
    if (format == Format::f32) pack_f32(values.data(), rows, columns, packed.data());
    if (format == Format::bf16) pack_bf16(values.data(), rows, columns, packed.data());
    if (format == Format::int8_channel) {
        std::vector<float> scale(static_cast<size_t>(rows));
        round_channels(values.data(), rows, columns, q.data(), scale.data());
        pack_int8_channel(q.data(), scale.data(), rows, columns, packed.data());
    }
    if (format == Format::int8_group32 || format == Format::int4_group32) {
        std::vector<uint16_t> scale(static_cast<size_t>(rows * ((columns + 31) / 32)));
        round_groups(format == Format::int4_group32 ? 4 : 8, values.data(), rows, columns, q.data(),
                     scale.data());
        pack_groups(format, q.data(), scale.data(), rows, columns, packed.data());
    }
    if (format == Format::int4_group32_f32) {
        const auto scale = random_floats(rows * ((columns + 31) / 32), 17, 0.01f);
        for (int64_t i = 0; i < rows * columns; i++)
            q[static_cast<size_t>(i)] = static_cast<int8_t>(static_cast<int>(values[i] * 100.0f) % 8);
        pack_groups_f32(q.data(), scale.data(), rows, columns, packed.data());
    }
    w.data = packed.data();
    return packed;
}

std::vector<float> multiply(const KernelTable& table, const Weight& w, const std::vector<float>& x,
                            int64_t n) {
    Needs needs;
    needs.add(w);
    QuantizedRows in(w.columns);
    in.reserve(n);
    for (int64_t i = 0; i < n; i++) {
        std::copy_n(x.begin() + i * w.columns, w.columns, in.values.row(i));
        in.prepare(table, needs, i);
    }
    std::vector<float> y(static_cast<size_t>(n * w.padded_rows()));
    table.matmul({w.format, w.data, w.padded_columns(), 0, w.tiles(), in.view(n), y.data(), w.padded_rows()});
    return y;
}

void compare_products(const KernelTable& table, const KernelTable& scalar) {
    for (const Format format : kFormats)
        for (const int64_t rows : {1, 16, 17, 80})
            for (const int64_t columns : {1, 31, 64, 65, 200})
                for (const int64_t n : {1, 2, 3, 4, 5, 7, 8, 9, 17, 55}) {
                    Weight w;
                    const auto packed = pack_random(format, rows, columns, w);
                    auto x = random_floats(n * columns, static_cast<uint32_t>(n + columns));
                    REQUIRE(same_bits(multiply(table, w, x, n), multiply(scalar, w, x, n)));
                    // What is not finite must show, and the same everywhere.
                    x[0] = columns % 2 == 0 ? std::numeric_limits<float>::quiet_NaN()
                                            : std::numeric_limits<float>::infinity();
                    const auto bad = multiply(table, w, x, n);
                    REQUIRE(same_bits(bad, multiply(scalar, w, x, n)));
                    REQUIRE(!std::isfinite(bad[0]) || (!is_integer(format) && bad[0] == 0));
                    std::fill(x.begin(), x.end(), 0.0f);
                    REQUIRE(same_bits(multiply(table, w, x, n), multiply(scalar, w, x, n)));
                }
}

// Beyond the pieces into which a path cuts rows, columns and tiles.
void compare_long_products(const KernelTable& table, const KernelTable& scalar) {
    for (const Format format : kFormats) {
        Weight w;
        const auto packed = pack_random(format, 130, 264, w);
        const auto x = random_floats(258 * 264, 11);
        REQUIRE(same_bits(multiply(table, w, x, 258), multiply(scalar, w, x, 258)));
    }
}

void compare_rows(const KernelTable& table, const KernelTable& scalar) {
    for (const int64_t n : {2, 16, 18, 48, 100}) {
        const auto x = random_floats(n, 7), gain = random_floats(n, 8), delta = random_floats(n, 9);
        auto a = x, b = x, out_a = x, out_b = x;
        table.add_rms_norm(a.data(), delta.data(), gain.data(), 1e-5f, n, out_a.data());
        scalar.add_rms_norm(b.data(), delta.data(), gain.data(), 1e-5f, n, out_b.data());
        REQUIRE(same_bits(a, b) && same_bits(out_a, out_b));
        const auto cosine = random_floats(n / 2, 3), sine = random_floats(n / 2, 4);
        table.rope(a.data(), 1, n / 2 * 2, cosine.data(), sine.data());
        scalar.rope(b.data(), 1, n / 2 * 2, cosine.data(), sine.data());
        REQUIRE(same_bits(a, b));
        REQUIRE(table.largest(a.data(), n) == scalar.largest(a.data(), n));
        const float sum_a = table.exp_sum(a.data(), n, 0.5f, 2.0f, out_a.data());
        REQUIRE(sum_a == scalar.exp_sum(b.data(), n, 0.5f, 2.0f, out_b.data()) && same_bits(out_a, out_b));
        std::vector<float> gate = random_floats(round_up(n, 16), 5, 30.0f), gate_b = gate;
        const auto up = random_floats(round_up(n, 16), 6);
        table.silu_mul(gate.data(), up.data(), round_up(n, 16));
        scalar.silu_mul(gate_b.data(), up.data(), round_up(n, 16));
        REQUIRE(same_bits(gate, gate_b));
        table.add_scaled(gate.data(), up.data(), 1.7f, round_up(n, 16));
        scalar.add_scaled(gate_b.data(), up.data(), 1.7f, round_up(n, 16));
        REQUIRE(same_bits(gate, gate_b));
    }
}

void compare_rotations(const KernelTable& table, const KernelTable& scalar) {
    for (int64_t block = 1; block <= 8192; block *= 2)
        for (const int64_t n_blocks : {1, 3}) {
            const int64_t n = n_blocks * std::max(block, int64_t{16});
            const auto x = random_floats(n, 5, 3.0f);
            auto a = x, b = x;
            table.rotate_blocks(a.data(), n, block);
            scalar.rotate_blocks(b.data(), n, block);
            REQUIRE(same_bits(a, b));
            // The matrix is its own inverse.
            table.rotate_blocks(a.data(), n, block);
            for (size_t i = 0; i < x.size(); i++) REQUIRE(std::fabs(a[i] - x[i]) < 2e-5f);
        }
}

}  // namespace

void test_kernels() {
    const KernelTable& scalar = find_kernels("scalar");
    for (const char* name : runnable_isas()) {
        compare_products(find_kernels(name), scalar);
        compare_long_products(find_kernels(name), scalar);
        compare_rows(find_kernels(name), scalar);
        compare_rotations(find_kernels(name), scalar);
    }
}

}  // namespace puna::test
