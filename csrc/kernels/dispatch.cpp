#include "kernels/dispatch.h"

#include <atomic>
#include <cstdlib>

#include "base/check.h"
#include "kernels/cpu.h"

namespace puna {

extern const KernelTable kTable_scalar;
#ifdef PUNA_X86
extern const KernelTable kTable_avx2, kTable_avx512, kTable_vnni, kTable_avx512_bf16, kTable_amx;
#elif defined(PUNA_ARM)
extern const KernelTable kTable_dotprod, kTable_i8mm;
#endif

namespace {

struct Entry {
    const KernelTable* table;
    bool supported;
};

const std::vector<Entry>& entries() {
    static const std::vector<Entry> all = {
        {&kTable_scalar, true},
#ifdef PUNA_X86
        {&kTable_avx2, cpu_features().avx2},
        {&kTable_avx512, cpu_features().avx512},
        {&kTable_vnni, cpu_features().vnni},
        {&kTable_avx512_bf16, cpu_features().avx512_bf16},
        {&kTable_amx, cpu_features().amx},
#elif defined(PUNA_ARM)
        {&kTable_dotprod, cpu_features().dotprod},
        {&kTable_i8mm, cpu_features().i8mm},
#endif
    };
    return all;
}

const KernelTable& best() {
    const KernelTable* table = nullptr;
    for (const Entry& entry : entries())
        if (entry.supported) table = entry.table;
    return *table;
}

std::atomic<const KernelTable*> active{nullptr};

}  // namespace

std::vector<IsaInfo> list_isas() {
    std::vector<IsaInfo> names;
    for (const Entry& entry : entries()) names.push_back({entry.table->name, entry.supported});
    return names;
}

const KernelTable& find_kernels(const std::string& name) {
    std::string available;
    for (const Entry& entry : entries()) {
        if (!entry.supported) continue;
        if (entry.table->name == name) return *entry.table;
        available += (available.empty() ? "" : ", ") + std::string(entry.table->name);
    }
    throw Error("instruction set '" + name +
                "' is unknown or not supported by this machine; available: " + available);
}

const KernelTable& kernels() {
    const KernelTable* table = active.load(std::memory_order_acquire);
    if (table != nullptr) return *table;
    const char* forced = std::getenv("PUNA_ISA");
    const KernelTable& chosen = forced != nullptr && *forced != '\0' ? find_kernels(forced) : best();
    active.store(&chosen, std::memory_order_release);
    return chosen;
}

void set_isa(const std::string& name) { active.store(&find_kernels(name), std::memory_order_release); }

}  // namespace puna
