// Chooses the kernel table: the widest that this CPU *and* its operating system support, or the one that is
// forced by name.
#pragma once

#include <string>
#include <vector>

#include "kernels/table.h"

namespace puna {

// Tables compiled into this build, slowest first, and whether this machine can run them.
struct IsaInfo {
    const char* name;
    bool supported;
};
std::vector<IsaInfo> list_isas();

// The table in use. The first call reads PUNA_ISA; Error where it names an unknown or unsupported one.
const KernelTable& kernels();

// The table of that name; Error lists those available.
const KernelTable& find_kernels(const std::string& name);

void set_isa(const std::string& name);

}  // namespace puna
