#include "pack/pack.h"

#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "base/check.h"
#include "bindings/bindings.h"

namespace puna {

namespace {

Weight shape_of(Format format, int64_t rows, int64_t columns) {
    PUNA_CHECK(rows >= 1 && columns >= 1, "a matrix needs at least 1 row and 1 column");
    Weight w;
    w.format = format;
    w.rows = rows;
    w.columns = columns;
    return w;
}

// New memory, 64-byte aligned for the vector paths. Much of it lies in large pages where the system has them:
// a token reads all weights, and looks up 500 times fewer.
uint8_t* new_bytes(size_t size) {
    void* data = nullptr;
#ifdef __linux__
    constexpr size_t kLargePage = size_t{2} << 20;
    if (size >= kLargePage) {
        if (posix_memalign(&data, kLargePage, size) != 0) throw std::bad_alloc();
        madvise(data, size / kLargePage * kLargePage, MADV_HUGEPAGE);  // a wish
        return static_cast<uint8_t*>(data);
    }
#endif
    data = std::aligned_alloc(64, size);
    if (data == nullptr) throw std::bad_alloc();
    return static_cast<uint8_t*>(data);
}

nb::ndarray<nb::numpy, uint8_t> new_packed(const Weight& w) {
    const auto size = static_cast<size_t>(w.bytes());
    uint8_t* data = new_bytes(size);
    const nb::capsule owner(data, [](void* p) noexcept { std::free(p); });
    return nb::ndarray<nb::numpy, uint8_t>(data, {size}, owner);
}

nb::ndarray<nb::numpy, uint8_t> pack_values(const std::string& format, const Array<float, 2>& values) {
    const auto rows = static_cast<int64_t>(values.shape(0)), columns = static_cast<int64_t>(values.shape(1));
    const Weight w = shape_of(format_from_name(format), rows, columns);
    PUNA_CHECK(!is_integer(w.format), "pack_values: needs f32 or bf16, got '" + format + "'");
    auto out = new_packed(w);
    const nb::gil_scoped_release released;
    (w.format == Format::f32 ? pack_f32 : pack_bf16)(values.data(), rows, columns, out.data());
    return out;
}

nb::ndarray<nb::numpy, uint8_t> pack_channels(const Array<int8_t, 2>& q, const Array<float, 1>& scale) {
    PUNA_CHECK(scale.shape(0) == q.shape(0), "pack_channels: need a scale a row");
    const auto rows = static_cast<int64_t>(q.shape(0)), columns = static_cast<int64_t>(q.shape(1));
    auto out = new_packed(shape_of(Format::int8_channel, rows, columns));
    const nb::gil_scoped_release released;
    pack_int8_channel(q.data(), scale.data(), rows, columns, out.data());
    return out;
}

template <class Scale>
void check_scales(const Array<int8_t, 2>& q, const Array<Scale, 2>& scale) {
    PUNA_CHECK(scale.shape(0) == q.shape(0) && scale.shape(1) == (q.shape(1) + 31) / 32,
               "pack_groups: need a scale for every 32 columns of every row");
}

nb::ndarray<nb::numpy, uint8_t> pack_grouped(const std::string& format, const Array<int8_t, 2>& q,
                                             const Array<uint16_t, 2>& scale) {
    const auto rows = static_cast<int64_t>(q.shape(0)), columns = static_cast<int64_t>(q.shape(1));
    check_scales(q, scale);
    const Weight w = shape_of(format_from_name(format), rows, columns);
    auto out = new_packed(w);
    const nb::gil_scoped_release released;
    pack_groups(w.format, q.data(), scale.data(), rows, columns, out.data());
    return out;
}

nb::ndarray<nb::numpy, uint8_t> pack_grouped_f32(const Array<int8_t, 2>& q, const Array<float, 2>& scale) {
    const auto rows = static_cast<int64_t>(q.shape(0)), columns = static_cast<int64_t>(q.shape(1));
    check_scales(q, scale);
    auto out = new_packed(shape_of(Format::int4_group32_f32, rows, columns));
    const nb::gil_scoped_release released;
    pack_groups_f32(q.data(), scale.data(), rows, columns, out.data());
    return out;
}

Weight weight_of(Format format, const Bytes& data, int64_t rows, int64_t columns) {
    Weight w = shape_of(format, rows, columns);
    PUNA_CHECK(static_cast<int64_t>(data.shape(0)) == w.bytes(),
               "unpack: need " + std::to_string(w.bytes()) + " bytes, got " + std::to_string(data.shape(0)));
    w.data = data.data();
    return w;
}

nb::ndarray<nb::numpy, float> unpack_values(const std::string& format, const Bytes& data, int64_t rows,
                                            int64_t columns) {
    const Weight w = weight_of(format_from_name(format), data, rows, columns);
    auto out = new_array<float>({static_cast<size_t>(rows), static_cast<size_t>(columns)});
    const nb::gil_scoped_release released;
    unpack(w, out.data());
    return out;
}

using GroupArrays = std::pair<nb::ndarray<nb::numpy, int8_t>, nb::ndarray<nb::numpy, uint16_t>>;
GroupArrays round_group_values(int bits, const Array<float, 2>& values) {
    const size_t rows = values.shape(0), columns = values.shape(1);
    auto q = new_array<int8_t>({rows, columns});
    auto scale = new_array<uint16_t>({rows, (columns + 31) / 32});
    {
        const nb::gil_scoped_release released;
        round_groups(bits, values.data(), static_cast<int64_t>(rows), static_cast<int64_t>(columns), q.data(),
                     scale.data());
    }
    return {q, scale};
}

GroupArrays unpack_group_integers(const std::string& format, const Bytes& data, int64_t rows,
                                  int64_t columns) {
    const Weight w = weight_of(format_from_name(format), data, rows, columns);
    auto q = new_array<int8_t>({static_cast<size_t>(rows), static_cast<size_t>(columns)});
    auto scale = new_array<uint16_t>({static_cast<size_t>(rows), static_cast<size_t>((columns + 31) / 32)});
    {
        const nb::gil_scoped_release released;
        unpack_groups(w, q.data(), scale.data());
    }
    return {q, scale};
}

using ChannelArrays = std::pair<nb::ndarray<nb::numpy, int8_t>, nb::ndarray<nb::numpy, float>>;
ChannelArrays round_channel_values(const Array<float, 2>& values) {
    const size_t rows = values.shape(0), columns = values.shape(1);
    auto q = new_array<int8_t>({rows, columns});
    auto scale = new_array<float>({rows});
    {
        const nb::gil_scoped_release released;
        round_channels(values.data(), static_cast<int64_t>(rows), static_cast<int64_t>(columns), q.data(),
                       scale.data());
    }
    return {q, scale};
}

ChannelArrays unpack_group_integers_f32(const Bytes& data, int64_t rows, int64_t columns) {
    const Weight w = weight_of(Format::int4_group32_f32, data, rows, columns);
    auto q = new_array<int8_t>({static_cast<size_t>(rows), static_cast<size_t>(columns)});
    auto scale = new_array<float>({static_cast<size_t>(rows), static_cast<size_t>((columns + 31) / 32)});
    {
        const nb::gil_scoped_release released;
        unpack_groups_f32(w, q.data(), scale.data());
    }
    return {q, scale};
}

ChannelArrays unpack_channel_integers(const Bytes& data, int64_t rows, int64_t columns) {
    const Weight w = weight_of(Format::int8_channel, data, rows, columns);
    auto q = new_array<int8_t>({static_cast<size_t>(rows), static_cast<size_t>(columns)});
    auto scale = new_array<float>({static_cast<size_t>(rows)});
    {
        const nb::gil_scoped_release released;
        unpack_int8_channel(w, q.data(), scale.data());
    }
    return {q, scale};
}

}  // namespace

void bind_pack(nb::module_& m) {
    m.def(
        "packed_bytes",
        [](const std::string& format, int64_t rows, int64_t columns) {
            return shape_of(format_from_name(format), rows, columns).bytes();
        },
        nb::arg("format"), nb::arg("rows"), nb::arg("columns"), "Bytes of a packed matrix.");
    m.def("pack_values", &pack_values, nb::arg("format"), nb::arg("values"),
          "float32 [rows, columns] to packed f32 or bf16 bytes.");
    m.def("pack_channels", &pack_channels, nb::arg("q"), nb::arg("scale"),
          "int8 [rows, columns] and float32 [rows] to packed int8_channel bytes.");
    m.def("pack_groups", &pack_grouped, nb::arg("format"), nb::arg("q"), nb::arg("scale"),
          "int8 [rows, columns] and float16 bits [rows, columns / 32] to packed int4_group32 or int8_group32 "
          "bytes.");
    m.def("pack_groups_f32", &pack_grouped_f32, nb::arg("q"), nb::arg("scale"),
          "int8 [rows, columns] and float32 [rows, columns / 32] to packed int4_group32_f32 bytes.");
    m.def("unpack", &unpack_values, nb::arg("format"), nb::arg("data"), nb::arg("rows"), nb::arg("columns"),
          "Packed bytes to float32 [rows, columns].");
    m.def("unpack_groups", &unpack_group_integers, nb::arg("format"), nb::arg("data"), nb::arg("rows"),
          nb::arg("columns"), "The inverse of pack_groups.");
    m.def("unpack_groups_f32", &unpack_group_integers_f32, nb::arg("data"), nb::arg("rows"),
          nb::arg("columns"), "The inverse of pack_groups_f32.");
    m.def("unpack_channels", &unpack_channel_integers, nb::arg("data"), nb::arg("rows"), nb::arg("columns"),
          "The inverse of pack_channels.");
    m.def("round_groups", &round_group_values, nb::arg("bits"), nb::arg("values"),
          "Round float32 [rows, columns] to nearest in groups of 32: int8 values and float16 scale bits.");
    m.def("round_channels", &round_channel_values, nb::arg("values"),
          "Round float32 [rows, columns] to int8 with a float32 scale a row.");
}

}  // namespace puna
