// What a pattern says, as a tree; see pattern.h for what may be in one.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tokens/charset.h"

namespace puna {

inline constexpr int32_t kNoLimit = INT32_MAX;

struct Node {
    enum class Kind { sequence, choice, character, set, repeat, atomic, ahead, line_start, line_end };
    enum class Greed { greedy, lazy, possessive };
    Kind kind = Kind::sequence;
    std::vector<Node> parts;      // of a sequence, choice, repeat, atomic group or look ahead
    uint32_t code = 0;            // of a character
    CharSet set;                  // of a set
    int32_t least = 1, most = 1;  // of a repeat; kNoLimit
    Greed greed = Greed::greedy;  // of a repeat
    bool is_negative = false;     // of a look ahead
};

// Throws TokenizerError where the pattern is damaged or has something that is not supported.
Node parse_pattern(std::string_view pattern);

}  // namespace puna
