// General categories of characters, as patterns ask for them.
#pragma once

#include <cstdint>
#include <string_view>

namespace puna {

// A category is its place in the list of make_unicode_categories.py.
inline constexpr uint32_t kCategories = 30;
inline constexpr uint8_t kUnassigned = 0, kSpaceSeparator = 23, kParagraphSeparator = 25;

// Category of every code point, 0x110000 of them, in Unicode 16.0, which is that of the libraries.
const uint8_t* category_table();

// The categories that \p{name} stands for, a bit each; 0 for a name that is no general category.
uint32_t category_mask(std::string_view name);

// The property White_Space.
inline bool is_white_space(uint32_t code) {
    if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13);
    if (code == 0x85) return true;
    const uint8_t category = category_table()[code];
    return category >= kSpaceSeparator && category <= kParagraphSeparator;
}

}  // namespace puna
