// GPT-2's alphabet, in which byte-level vocabularies spell bytes: printable Latin-1 stands for itself, the
// other 68 bytes follow from U+0100 on.
#pragma once

#include <array>
#include <cstdint>

namespace puna {

struct Spelled {
    char bytes[2];
    uint8_t length;
};

// The character of each byte, in UTF-8.
inline constexpr std::array<Spelled, 256> kAlphabet = [] {
    std::array<Spelled, 256> all{};
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const bool is_plain = (byte >= 0x21 && byte < 0x7f) || (byte >= 0xa1 && byte < 0xad) || byte >= 0xae;
        const uint32_t code = is_plain ? byte : next++;
        if (code < 0x80)
            all[byte] = {{static_cast<char>(code), 0}, 1};
        else
            all[byte] = {{static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))}, 2};
    }
    return all;
}();

// The byte that a character stands for, -1 for one outside of the alphabet.
inline int byte_of(uint32_t code) {
    static constexpr std::array<int16_t, 0x180> kBytes = [] {
        std::array<int16_t, 0x180> all{};
        for (int16_t& byte : all) byte = -1;
        for (int16_t byte = 0; byte < 256; byte++) {
            const Spelled& s = kAlphabet[static_cast<size_t>(byte)];
            const auto first = static_cast<unsigned char>(s.bytes[0]),
                       second = static_cast<unsigned char>(s.bytes[1]);
            all[s.length == 1 ? first : (first & 0x1fu) << 6 | (second & 0x3fu)] = byte;
        }
        return all;
    }();
    return code < kBytes.size() ? kBytes[code] : -1;
}

}  // namespace puna
