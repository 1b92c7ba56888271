#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings/bindings.h"
#include "kernels/dispatch.h"

namespace puna {

void bind_isa(nb::module_& m) {
    m.def("isa", [] { return std::string(kernels().name); }, "Name of the kernel table in use.");
    m.def("set_isa", &set_isa, nb::arg("name"), "Use the named kernel table from the next step on.");
    m.def(
        "isas",
        [] {
            std::vector<std::pair<std::string, bool>> all;
            for (const IsaInfo& info : list_isas()) all.emplace_back(info.name, info.supported);
            return all;
        },
        "Kernel tables of this build, slowest first, and whether this machine runs them.");
}

}  // namespace puna
