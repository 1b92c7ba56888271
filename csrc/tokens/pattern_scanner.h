// Reads a pattern by the character, and those that are written with a backslash.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "tokens/error.h"
#include "tokens/utf8.h"

namespace puna {

inline bool is_letter(uint32_t code) { return (code | 32) >= 'a' && (code | 32) <= 'z'; }
inline bool is_digit(uint32_t code) { return code >= '0' && code <= '9'; }

class PatternScanner {
  public:
    static constexpr size_t kMaxPattern = 10'000;

    explicit PatternScanner(std::string_view pattern) : pattern_(pattern) {
        PUNA_TOKENS_CHECK(pattern.size() <= kMaxPattern, "a pattern may have " + std::to_string(kMaxPattern) +
                                                             " bytes, got " + std::to_string(pattern.size()));
    }

  protected:
    [[noreturn]] void fail(const std::string& what) const {
        throw TokenizerError("pattern " + quoted(pattern_, 60) + ", byte " + std::to_string(at_) + ": " +
                             what);
    }
    [[noreturn]] void unsupported(const std::string& what) const {
        fail(what +
             " is not supported; a Llama's patterns have characters, sets, \\s \\d \\p{..}, (?:..), (?i:..), "
             "(?>..), (?=..), (?!..), | and ? * + {n,m}");
    }
    bool is_at(std::string_view text) const { return pattern_.substr(at_).starts_with(text); }
    bool take(std::string_view text) {
        if (!is_at(text)) return false;
        at_ += text.size();
        return true;
    }
    uint32_t next() {
        if (at_ >= pattern_.size()) fail("it ends too early");
        const Character c = character_at(pattern_.data() + at_, pattern_.data() + pattern_.size());
        at_ += c.bytes;
        return c.code;
    }

    // The character that a backslash and this one stand for.
    uint32_t escaped_code(uint32_t c) {
        static constexpr std::pair<char, uint32_t> kControls[] = {{'n', 10}, {'r', 13}, {'t', 9}, {'f', 12},
                                                                  {'v', 11}, {'a', 7},  {'e', 27}};
        for (const auto& [letter, code] : kControls)
            if (c == static_cast<uint32_t>(letter)) return code;
        if (c == 'u') return hex(4);
        if (c == 'x') {
            if (!take("{")) {
                const uint32_t code = hex(2);
                if (code >= 128) unsupported("\\x over 7f");
                return code;
            }
            const size_t end = pattern_.find('}', at_);
            if (end == std::string_view::npos || end - at_ > 6) fail("\\x{ needs 1 to 6 digits and a }");
            const uint32_t code = hex(end - at_);
            at_++;
            return code;
        }
        if (is_letter(c) || is_digit(c) || c >= 128) unsupported("this escape");
        return c;
    }

    uint32_t hex(size_t n_digits) {
        uint32_t value = 0;
        for (size_t i = 0; i < n_digits; i++) {
            const uint32_t c = next();
            if (!is_digit(c) && ((c | 32) < 'a' || (c | 32) > 'f')) fail("a hexadecimal digit is missing");
            value = value * 16 + (is_digit(c) ? c - '0' : (c | 32) - 'a' + 10);
        }
        if (n_digits == 0 || value >= 0x110000) fail("no character has this number");
        return value;
    }

    std::string_view pattern_;
    size_t at_ = 0;
};

}  // namespace puna
