// UTF-8 by the character. Text that is no UTF-8 is taken byte by byte, each as U+FFFD: nothing reads past an
// end.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace puna {

struct Character {
    uint32_t code;
    uint32_t bytes;
};

inline constexpr uint32_t kReplacement = 0xfffd;

// The character at p, which is before `end`.
inline Character character_at(const char* p, const char* end) {
    const auto byte = [&](int i) { return static_cast<uint32_t>(static_cast<unsigned char>(p[i])); };
    const auto follows = [&](int i) { return (byte(i) & 0xc0) == 0x80; };
    const uint32_t first = byte(0);
    const auto left = end - p;
    if (first < 0x80) return {first, 1};
    if (first >= 0xc2 && first < 0xe0 && left > 1 && follows(1))
        return {(first & 0x1f) << 6 | (byte(1) & 0x3f), 2};
    if (first >= 0xe0 && first < 0xf0 && left > 2 && follows(1) && follows(2)) {
        const uint32_t code = (first & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
        if (code >= 0x800 && (code < 0xd800 || code >= 0xe000)) return {code, 3};
    }
    if (first >= 0xf0 && first < 0xf5 && left > 3 && follows(1) && follows(2) && follows(3)) {
        const uint32_t code =
            (first & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
        if (code >= 0x10000 && code < 0x110000) return {code, 4};
    }
    return {kReplacement, 1};
}

inline bool is_continuation(char byte) { return (static_cast<unsigned char>(byte) & 0xc0) == 0x80; }

inline void append_utf8(std::string& out, uint32_t code) {
    const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
        put(code);
    } else if (code < 0x800) {
        put(0xc0 | code >> 6);
        put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
        put(0xe0 | code >> 12);
        put(0x80 | (code >> 6 & 0x3f));
        put(0x80 | (code & 0x3f));
    } else {
        put(0xf0 | code >> 18);
        put(0x80 | (code >> 12 & 0x3f));
        put(0x80 | (code >> 6 & 0x3f));
        put(0x80 | (code & 0x3f));
    }
}

inline bool is_utf8(std::string_view text) {
    const char* const end = text.data() + text.size();
    for (const char* p = text.data(); p < end;) {
        const Character c = character_at(p, end);
        if (c.code == kReplacement && c.bytes == 1) return false;
        p += c.bytes;
    }
    return true;
}

}  // namespace puna
