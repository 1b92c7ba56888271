#include "probe/probe.h"

#include "bindings/bindings.h"

namespace puna {

void bind_probe(nb::module_& m) {
    using Unlocked = nb::call_guard<nb::gil_scoped_release>;
    m.def("read_rate", &read_rate, nb::arg("threads"), nb::arg("n_bytes"), nb::arg("passes"), Unlocked(),
          "Bytes a second that so many threads read from memory: the best of several passes.");
    m.def("multiply_rate", &multiply_rate, nb::arg("threads"), nb::arg("passes"), Unlocked(),
          "Products of bytes a second that so many threads compute and add up: the best of several passes.");
}

}  // namespace puna
