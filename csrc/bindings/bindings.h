// The Python module puna._native: arguments checked by type here, by value in the C++ API; no logic.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cstdint>

namespace nb = nanobind;

namespace puna {

template <class T, int dims>
using Array = nb::ndarray<const T, nb::ndim<dims>, nb::c_contig, nb::device::cpu>;
using Bytes = Array<uint8_t, 1>;

// A new NumPy array that owns its memory.
template <class T>
nb::ndarray<nb::numpy, T> new_array(std::initializer_list<size_t> shape) {
    size_t count = 1;
    for (const size_t n : shape) count *= n;
    T* data = new T[count]();
    const nb::capsule owner(data, [](void* p) noexcept { delete[] static_cast<T*>(p); });
    return nb::ndarray<nb::numpy, T>(data, shape, owner);
}

void bind_isa(nb::module_& m);
void bind_pack(nb::module_& m);
void bind_probe(nb::module_& m);
void bind_model(nb::module_& m);
void bind_sampler(nb::module_& m);
void bind_runner(nb::module_& m);
void bind_kernels(nb::module_& m);
void bind_tokens(nb::module_& m);

}  // namespace puna
