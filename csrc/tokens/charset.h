// A set of characters, as a pattern's [...], \s or \p{L} describes one.
#pragma once

#include <array>
#include <cstdint>
#include <utility>
#include <vector>

#include "tokens/unicode.h"

namespace puna {

class CharSet {
  public:
    void add(uint32_t first, uint32_t last) {
        ranges_.emplace_back(first, last);
        for (uint32_t code = first; code <= last && code < 128; code++)
            ascii_[code >> 6] |= 1ull << (code & 63);
    }
    void add_categories(uint32_t mask) {
        categories_ |= mask;
        for (uint32_t code = 0; code < 128; code++)
            if (mask >> category_table()[code] & 1) ascii_[code >> 6] |= 1ull << (code & 63);
    }
    // A set within this one, such as \S in [\S\n].
    void add(const CharSet& other) {
        for (size_t i = 0; i < 2; i++) ascii_[i] |= other.ascii_[i];
        within_.push_back(other);
    }
    void negate() {
        is_negated_ = !is_negated_;
        for (uint64_t& bits : ascii_) bits = ~bits;
    }
    bool has(uint32_t code) const {
        return code < 128 ? (ascii_[code >> 6] >> (code & 63) & 1) != 0 : has_wide(code);
    }

  private:
    bool has_wide(uint32_t code) const {
        if (categories_ >> category_table_[code] & 1) return !is_negated_;
        for (const auto& [first, last] : ranges_)
            if (code >= first && code <= last) return !is_negated_;
        for (const CharSet& set : within_)
            if (set.has_wide(code)) return !is_negated_;
        return is_negated_;
    }

    std::array<uint64_t, 2> ascii_{};  // the answer for the first 128 characters
    const uint8_t* category_table_ = category_table();
    uint32_t categories_ = 0;
    bool is_negated_ = false;
    std::vector<std::pair<uint32_t, uint32_t>> ranges_;
    std::vector<CharSet> within_;
};

}  // namespace puna
