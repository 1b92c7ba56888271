#include "tokens/unicode.h"

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

namespace puna {

namespace {

constexpr uint32_t kCodes = 0x110000;

constexpr uint16_t kRuns[] = {
#include "tokens/unicode_categories.inc"
};

constexpr std::string_view kNames[kCategories] = {
    "Cn", "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps",
    "Pe", "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cs",
};

// Flat, for one read a character. Most of it is unassigned (0) and never touched, so it costs half a
// megabyte.
uint8_t* make_table() {
    auto* table = static_cast<uint8_t*>(std::calloc(kCodes, 1));
    if (table == nullptr) throw std::bad_alloc();
    uint32_t code = 0;
    for (const uint16_t run : kRuns) {
        const uint32_t length = run >> 5, category = run & 31;
        if (category != kUnassigned) std::memset(table + code, static_cast<int>(category), length);
        code += length;
    }
    return table;
}

}  // namespace

const uint8_t* category_table() {
    static const uint8_t* const table = make_table();
    return table;
}

uint32_t category_mask(std::string_view name) {
    uint32_t mask = 0;
    for (uint32_t i = 0; i < kCategories; i++)
        if (kNames[i] == name || (name.size() == 1 && kNames[i][0] == name[0])) mask |= 1u << i;
    return mask;
}

}  // namespace puna
