// Single kernels by table name, for tests that compare the tables with each other and with float64, and for
// benchmarks.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "bindings/bindings.h"
#include "kernels/dispatch.h"
#include "model/model.h"
#include "model/rows.h"
#include "probe/probe.h"

namespace puna {

namespace {

Weight weight_of(const std::string& format, const Bytes& weights, int64_t rows, int64_t columns,
                 const Array<float, 2>& x) {
    Weight w;
    w.format = format_from_name(format);
    w.rows = rows;
    w.columns = columns;
    w.data = weights.data();
    PUNA_CHECK(static_cast<int64_t>(weights.shape(0)) == w.bytes(), "matmul: wrong number of weight bytes");
    PUNA_CHECK(static_cast<int64_t>(x.shape(1)) == columns, "matmul: x needs as many columns as the weights");
    return w;
}

double rate_of_matmul(const std::string& isa, const std::string& format, const Bytes& weights, int64_t rows,
                      int64_t columns, const Array<float, 2>& x, int threads, int passes) {
    const Weight w = weight_of(format, weights, rows, columns, x);
    return matmul_rate(find_kernels(isa), w, x.data(), static_cast<int64_t>(x.shape(0)), threads, passes);
}

nb::ndarray<nb::numpy, float> matmul(const std::string& isa, const std::string& format, const Bytes& weights,
                                     int64_t rows, int64_t columns, const Array<float, 2>& x) {
    const KernelTable& table = find_kernels(isa);
    const Weight w = weight_of(format, weights, rows, columns, x);
    const auto n = static_cast<int64_t>(x.shape(0));
    Needs needs;
    needs.add(w);
    QuantizedRows in(columns);
    Rows y(w.padded_rows());
    in.reserve(n);
    y.reserve(n);
    for (int64_t i = 0; i < n; i++) {
        std::copy_n(x.data() + i * columns, columns, in.values.row(i));
        in.prepare(table, needs, i);
    }
    table.matmul({w.format, w.data, w.padded_columns(), 0, w.tiles(), in.view(n), y.row(0), y.stride()});
    auto out = new_array<float>({static_cast<size_t>(n), static_cast<size_t>(rows)});
    for (int64_t i = 0; i < n; i++) std::copy_n(y.row(i), rows, out.data() + i * rows);
    return out;
}

std::tuple<nb::ndarray<nb::numpy, int8_t>, float, int> quantize(const std::string& isa,
                                                                const Array<float, 1>& x) {
    const auto n = static_cast<int64_t>(x.shape(0)), padded = round_up(n, kColumnBlock);
    std::vector<float> values(static_cast<size_t>(padded), 0.0f);
    std::vector<int8_t> q(values.size());
    std::vector<int32_t> sums(values.size() / kGroup);
    std::copy_n(x.data(), n, values.begin());
    float scale = 0;
    int32_t zero = 0;
    find_kernels(isa).quantize_row(values.data(), padded, q.data(), &scale, &zero, sums.data());
    auto out = new_array<int8_t>({x.shape(0)});
    std::copy_n(q.begin(), n, out.data());
    return {out, scale, zero};
}

nb::ndarray<nb::numpy, float> rms_norm(const std::string& isa, const Array<float, 1>& x,
                                       const Array<float, 1>& gain, float eps) {
    PUNA_CHECK(x.shape(0) == gain.shape(0), "rms_norm: x and gain differ in length");
    std::vector<float> copy(x.data(), x.data() + x.shape(0));
    auto out = new_array<float>({x.shape(0)});
    find_kernels(isa).add_rms_norm(copy.data(), nullptr, gain.data(), eps, static_cast<int64_t>(copy.size()),
                                   out.data());
    return out;
}

nb::ndarray<nb::numpy, float> rotate_blocks(const std::string& isa, const Array<float, 1>& x, int64_t block) {
    const auto n = static_cast<int64_t>(x.shape(0));
    PUNA_CHECK(block >= 1 && (block & (block - 1)) == 0 && n % block == 0,
               "rotate_blocks: `block` must be a power of two that divides the length");
    Rows row(n);  // aligned, as the engine's are
    row.reserve(1);
    std::copy_n(x.data(), n, row.row(0));
    find_kernels(isa).rotate_blocks(row.row(0), round_up(n, 16), block);
    auto out = new_array<float>({x.shape(0)});
    std::copy_n(row.row(0), n, out.data());
    return out;
}

nb::ndarray<nb::numpy, float> exponential(const std::string& isa, const Array<float, 1>& x) {
    auto out = new_array<float>({x.shape(0)});
    find_kernels(isa).exp_sum(x.data(), static_cast<int64_t>(x.shape(0)), 0.0f, 1.0f, out.data());
    return out;
}

}  // namespace

void bind_kernels(nb::module_& m) {
    nb::module_ k = m.def_submodule("kernels", "Single kernels of a named table, for tests and benchmarks.");
    k.def("matmul", &matmul, nb::arg("isa"), nb::arg("format"), nb::arg("weights"), nb::arg("rows"),
          nb::arg("columns"), nb::arg("x"));
    k.def("matmul_rate", &rate_of_matmul, nb::arg("isa"), nb::arg("format"), nb::arg("weights"),
          nb::arg("rows"), nb::arg("columns"), nb::arg("x"), nb::arg("threads"), nb::arg("passes"),
          "Products a second of the matmul above: the best of several passes.");
    k.def("quantize", &quantize, nb::arg("isa"), nb::arg("x"));
    k.def("rms_norm", &rms_norm, nb::arg("isa"), nb::arg("x"), nb::arg("gain"), nb::arg("eps"));
    k.def("rotate_blocks", &rotate_blocks, nb::arg("isa"), nb::arg("x"), nb::arg("block"),
          "The Hadamard rotation of each `block` neighbouring values.");
    k.def("exp", &exponential, nb::arg("isa"), nb::arg("x"));
}

}  // namespace puna
